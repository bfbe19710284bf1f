"""Optuna, and what it is trusted with: to propose values, and to keep a journal of them that survives being killed.

The journal says what was asked and what came of it. Proposals are made in a study in memory, from what earlier rounds have
told and a seed, so that they are the same whenever they are made; a trial enters the journal whole, with its values, in one
line. However a tuning was stopped, what is in the journal is finished with its own values and what is missing is proposed
again as it would have been.
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import filelock

from msam.bench._plans import Plan, Row
from msam.checks import Search

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    from optuna.trial import TrialState, create_trial
except ModuleNotFoundError as error:
    raise ValueError(f"Tuning needs Optuna ({error}). Install it with: pip install 'msam[tune]'") from error

VERSION: str = optuna.__version__
"""Of Optuna."""

SEED = 0
"""Of all samplers: rows with the same number of tuned options try the same places of their spaces."""

DIGITS = 4
"""Significant digits of what is proposed."""

Values = Mapping[str, Any]


class Study:
    """The journal of one row.

    Arguments:
        storage: from `storage`.
        row: what is tuned; the journal keeps its plan.

    Raises:
        ValueError: if the journal holds this row with another plan, or another row with another budget.
    """

    def __init__(self, storage: JournalStorage, row: Row) -> None:
        self._row = row
        with _quiet():
            self._study = optuna.create_study(
                storage=storage, study_name=row.name, direction="maximize", load_if_exists=True
            )
            others = [study for study in optuna.get_all_study_summaries(storage) if "plan" in study.user_attrs]
        for other in others:
            found = Plan.read(other.user_attrs["plan"])
            if other.study_name == row.name:
                row.plan.check_same(found, f"The tuning of row {row.name!r} in this folder")
            elif found.budget != row.plan.budget:
                raise ValueError(
                    f"All rows of a folder have one budget: {other.study_name!r} has {found.budget}, {row.name!r} was "
                    f"asked for with {row.plan.budget}. Give the same, or another folder."
                )
        if "plan" not in self._study.user_attrs:
            self._study.set_user_attr("plan", row.plan.plain())

    def ask(self, first: int, count: int) -> list[Values]:
        """Return the values of the trials `first` .. `first + count - 1`; all before them have been told."""
        known = self._study.get_trials(deepcopy=False)
        missing = first + count - len(known)
        if missing > 0:
            told = [(trial.params, trial.value) for trial in known[:first]]
            distributions = _distributions(self._row.plan)
            for values in proposals(self._row, told, count)[count - missing :]:
                self._study.add_trial(
                    create_trial(state=TrialState.RUNNING, params=dict(values), distributions=distributions)
                )
        return [trial.params for trial in self._study.get_trials(deepcopy=False)[first : first + count]]

    def tell(self, number: int, accuracy: float) -> None:
        """Take down what came of a trial; what was told before stays."""
        if self._study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:
            self._study.tell(number, accuracy)


@contextmanager
def storage(folder: Path, rows: Sequence[str]) -> Iterator[JournalStorage]:
    """Open the journal of a folder; no other process tunes the same rows meanwhile.

    Raises:
        ValueError: if one does.
    """
    locks = folder / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        for row in sorted(rows):
            try:
                held.enter_context(filelock.FileLock(locks / f"{row}.lock", timeout=0))
            except filelock.Timeout:
                raise ValueError(
                    f"Another process is tuning row {row!r} in {folder}. Let it finish, or give another folder."
                ) from None
        journal, between = folder / "journal.log", _Lock(locks / "journal")
        _mend(journal, between)
        with _quiet():
            found = JournalStorage(JournalFileBackend(str(journal), lock_obj=between))
        yield found


def proposals(row: Row, told: Sequence[tuple[Values, float | None]], count: int) -> list[Values]:
    """Return the values of the next `count` trials, the same for the same arguments; the very first is where it begins.

    Arguments:
        row: what is tuned.
        told: values and results of all trials before.
        count: how many.
    """
    plan, distributions = row.plan, _distributions(row.plan)
    with _quiet():
        study = optuna.create_study(direction="maximize", sampler=_sampler(plan, len(told)))
        # the quasi-random sampler learns the space from a trial that is complete; before any is, the result says nothing
        for values, result in told or [(row.start, 0.0)]:
            study.add_trial(create_trial(value=result, params=dict(values), distributions=distributions))
        own = [] if told else [dict(row.start)]
        drawn = [study.ask(distributions).params for _ in range(count - len(own))]
    return [*own, *({key: _rounded(value, plan.space[key]) for key, value in one.items()} for one in drawn)]


def _sampler(plan: Plan, told: int) -> optuna.samplers.BaseSampler:
    if plan.sampler == "sobol":
        return optuna.samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=SEED)
    if plan.sampler == "random":
        return optuna.samplers.RandomSampler(seed=SEED)
    # a third of the trials looks around; then those of one round keep away from each other
    looks = max(2, plan.trials // 3)
    return optuna.samplers.TPESampler(n_startup_trials=looks, constant_liar=True, seed=SEED + told)


def _distributions(plan: Plan) -> dict[str, BaseDistribution]:
    return {key: _distribution(search) for key, search in plan.space.items()}


def _distribution(search: Search) -> BaseDistribution:
    if search.choices:
        return CategoricalDistribution(search.choices)
    assert search.low is not None
    assert search.high is not None
    if search.whole:
        return IntDistribution(int(search.low), int(search.high), log=search.log)
    return FloatDistribution(search.low, search.high, log=search.log)


def _rounded(value: Any, search: Search) -> Any:
    if search.choices or search.whole:
        return value
    assert search.low is not None
    assert search.high is not None
    return min(max(float(f"{value:.{DIGITS}g}"), search.low), search.high)


class _Lock(JournalFileOpenLock):
    """A lock that goes with the process that held it; Optuna's own waits half a minute for one that was killed."""

    def __init__(self, path: Path) -> None:
        self._lock = filelock.FileLock(path)

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Give it back."""
        self._lock.release()


def _mend(journal: Path, lock: _Lock) -> None:
    """Cut off a line that a killed process has left unfinished."""
    if not journal.exists():
        return
    lock.acquire()
    try:
        content = journal.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(journal, whole)
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"{journal}, line {number} is not JSON ({error}). The journal is damaged; tune in another folder."
                ) from error
    finally:
        lock.release()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's notes and its warnings of what is experimental from the user."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
