"""What a task is measured by, and in which words: asked wherever a report says an accuracy, or an R²."""

from collections.abc import Iterable
from dataclasses import dataclass

from msam import checks
from msam.selection import Selection


@dataclass(frozen=True)
class Measure:
    """A measure that stands in a table beside the one that decides.

    Attributes:
        key: its name in the record.
        title: head of its column, with the unit.
        short: the head where there is little room.
        rank: what goes first where there is no room at all, see `table.Column`.
        scale: what it is multiplied by to be shown.
        digits: behind the point; None for as many as its size asks for, where it has the unit of somebody's targets.
    """

    key: str
    title: str
    short: str
    rank: int
    scale: float = 100
    digits: int | None = 1


@dataclass(frozen=True)
class Task:
    """A kind of task in the words of a report.

    Attributes:
        name: in the header of a record.
        key: name in the record of the measure that decides, a fraction of 1: higher is better.
        measured: that measure in words.
        many: several of its values in words.
        head: the same as the head of a column.
        others: what else is measured.
        outputs: what the model has so many of as `num_classes` says.
        shapley: what the Shapley logits of a modality answer.
        own: what a modality's own head is.
        unit: of its loss.
    """

    name: str
    key: str
    measured: str
    many: str
    head: str
    others: tuple[Measure, ...]
    outputs: str
    shapley: str
    own: str
    unit: str

    @property
    def rated(self) -> bool:
        """Whether an accuracy decides: relative gains (Eq. 21), τ (Eq. 1) and the paper's tables are of those alone."""
        return self.key == "accuracy"

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of all measures in the record but for `nll`, which every task has."""
        return (self.key, *(measure.key for measure in self.others))


_F1 = Measure("macro_f1", "Macro-F1 (%)", "F1 (%)", 7)
CLASSES = Task(
    name="single-label",
    key="accuracy",
    measured="accuracy",
    many="accuracies",
    head="Acc",
    others=(_F1,),
    outputs="classes",
    shapley="the class with the largest Shapley value of the modality",
    own="its own classifier",
    unit="nats",
)
LABELS = Task(
    name="multi-label",
    key="accuracy",
    measured="label accuracy",
    many="label accuracies",
    head="Label accuracy",
    others=(
        _F1,
        Measure("exact_match", "Exact match (%)", "Exact (%)", 8),
        Measure("average_precision", "Average precision (%)", "AP (%)", 9),
    ),
    outputs="labels",
    shapley="the labels whose Shapley value of the modality is above 0",
    own="its own classifier",
    unit="nats",
)
NUMBERS = Task(
    name="regression",
    key="r2",
    measured="R²",
    many="R² values",
    head="R²",
    others=(
        Measure("rmse", "RMSE", "RMSE", 7, scale=1, digits=None),
        Measure("mae", "MAE", "MAE", 8, scale=1, digits=None),
    ),
    outputs="numbers",
    shapley="the Shapley values of the modality",
    own="its own regressor",
    unit="MSE",
)
_TASKS = {task.name: task for task in (CLASSES, LABELS, NUMBERS)}


def task(name: str) -> Task:
    """Return the task of a name.

    Raises:
        ValueError: if there is none, with the nearest known name.

    >>> task("regression").keys
    ('r2', 'rmse', 'mae')
    """
    return _TASKS[checks.one_of("task", name, _TASKS)]


def each(tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Return the tasks, each once, in a fixed order."""
    found = set(tasks)
    return tuple(one for one in _TASKS.values() if one in found)


def either(words: Iterable[str]) -> str:
    """Return words, each once, with an "or" between them; nothing of none.

    >>> either(["accuracy", "label accuracy", "R²", "accuracy"])
    'accuracy, label accuracy or R²'
    """
    *first, last = dict.fromkeys(words) or ("",)
    return f"{', '.join(first)} or {last}" if first else last


def capital(words: str) -> str:
    """Return words as they begin a sentence.

    >>> capital("label accuracy or R²")
    'Label accuracy or R²'
    """
    return words[:1].upper() + words[1:]


def measured(tasks: Iterable[Task]) -> str:
    """Return the measures that decide in words.

    >>> measured([NUMBERS, CLASSES])
    'accuracy or R²'
    """
    return either(one.measured for one in each(tasks))


def rule(selection: Selection, tasks: Iterable[Task]) -> str:
    """Return how epochs were selected, in the words of the tasks; those of a selection are of classes.

    >>> from msam import selection
    >>> rule(selection.load("best_validation"), [NUMBERS])
    'the epoch with the best validation R², the earliest on ties'
    """
    return selection.words.replace(CLASSES.measured, measured(tasks))
