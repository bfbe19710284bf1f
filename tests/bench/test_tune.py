"""Every row is tuned with the same budget, on validation alone; what was chosen is known with all that was tried."""

import gzip
import json
import random
import re
import sys
from pathlib import Path

import filelock
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msam import bench
from msam.bench.tune import Chosen, chosen, seeds_apart, tune, tuning_seeds
from msam.checks import Search
from msam.train import config
from tests.bench._tuning import ROWS, Runs, epoch
from tests.bench.grids import WORLD
from tests.bench.inline import Inline

SAMPLERS = ("sobol", "random", "tpe")


def tuned(folder: Path, rows=ROWS, runs: Runs | None = None, **options) -> dict[str, Chosen]:
    options = {"trials": 5, "seeds": 1, "quiet": True, **options}
    return tune(rows, folder, runner=runs or Runs(), **options)


def one(folder: Path, measure, **options) -> Chosen:
    """Tune the learning rate of joint training; what a run measures is a function of it."""
    row = {"data": WORLD, "search": {"optimizer.weight_decay": None}}
    runs = Runs(lambda made: measure(made.optimizer["lr"], made.seed))
    return tuned(folder, {"joint": row}, runs, **{"seeds": 2, **options})["joint"]


def choices(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "chosen").iterdir()}


class TestBudget:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_every_row_gets_as_many_trials_seeds_and_epochs(self, tmp_path, sampler):
        runs = Runs()
        found = tuned(tmp_path, runs=runs, sampler=sampler, trials=6, seeds=2)
        assert len(runs.made) == len({made.run_name() for made in runs.made}) == 2 * 6 * 2
        for row, method in (("joint", "joint"), ("ogm-ge-msam", "ogm_ge")):
            cells = [made for made in runs.made if made.method["name"] == method]
            assert [sum(made.seed == seed for made in cells) for seed in (1000, 1001)] == [6, 6]
            assert {made.epochs for made in cells} == {2}
            assert len(found[row].trials) == 6
            assert {run for trial in found[row].trials for run in trial.runs} == {made.run_name() for made in cells}

    def test_sobol_and_random_ask_for_all_rows_and_trials_at_once_and_tpe_in_rounds(self, tmp_path):
        rounds = {}
        for sampler in SAMPLERS:
            sizes = []

            class Counted(Runs):
                def __call__(self, configs, folder, /, **how):
                    sizes.append(len(configs))  # noqa: B023 - called within the loop
                    return super().__call__(configs, folder, **how)

            tuned(tmp_path / sampler, runs=Counted(), sampler=sampler, trials=6, seeds=2)
            rounds[sampler] = sizes
        assert rounds == {"sobol": [24], "random": [24], "tpe": [16, 8]}

    def test_rows_of_different_epochs_are_refused(self, tmp_path):
        rows = {**ROWS, "twice": {"data": WORLD, "epochs": 4}}
        with pytest.raises(ValueError, match=r"same epochs.*'joint' has 2, 'twice' has 4"):
            tuned(tmp_path, rows)

    def test_rows_that_come_later_get_the_budget_of_the_folder(self, tmp_path):
        tuned(tmp_path, {"joint": ROWS["joint"]})
        with pytest.raises(ValueError, match=r"one budget: 'joint' has 5 trials .*asked for with 7 trials"):
            tuned(tmp_path, {"ogm": ROWS["ogm-ge-msam"]}, trials=7)
        tuned(tmp_path, {"ogm": ROWS["ogm-ge-msam"]})
        assert list(chosen(tmp_path)) == ["joint", "ogm"]


class TestTrials:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_the_first_is_the_row_as_it_is(self, tmp_path, sampler):
        rows = {"ogm": {**ROWS["ogm-ge-msam"], "method": {"name": "ogm_ge", "alpha": 0.3}}}
        found = tuned(tmp_path, rows, sampler=sampler, seeds=[5])["ogm"]
        assert found.trials[0].values == {
            "optimizer.lr": 0.05,
            "optimizer.weight_decay": 1e-4,
            "method.alpha": 0.3,
            "sharpness.rho": 0.05,
        }
        assert found.trials[0].runs == (bench.cell(rows["ogm"], seed=5).run_name(),)

    @settings(deadline=None, max_examples=6)
    @given(luck=st.integers(0, 1000), sampler=st.sampled_from(SAMPLERS))
    def test_no_row_comes_out_worse_on_validation_than_it_went_in(self, luck, sampler, tmp_path_factory):
        def measure(made):
            return [epoch(random.Random(f"{luck}{made}").random())]

        folder = tmp_path_factory.mktemp("tuning")
        for found in tuned(folder, runs=Runs(measure), sampler=sampler).values():
            assert found.accuracy == max(trial.accuracy for trial in found.trials) >= found.trials[0].accuracy

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_they_are_the_same_when_drawn_again_in_the_space_and_of_few_digits(self, tmp_path, sampler):
        first, second = (tuned(tmp_path / name, sampler=sampler) for name in "ab")
        assert first == second
        for found in first.values():
            for trial in found.trials:
                assert all(space.holds(trial.values[key]) for key, space in found.plan.space.items())
            numbers = [value for trial in found.trials[1:] for value in trial.values.values()]
            assert all(float(f"{value:.4g}") == value for value in numbers)
            assert len(set(numbers)) == len(numbers)

    def test_results_steer_tpe_and_nothing_else(self, tmp_path):
        def asked(sampler, sign):
            runs = Runs(lambda made: [epoch(0.5 + sign * made.optimizer["lr"])])
            found = tuned(tmp_path / f"{sampler}{sign}", runs=runs, sampler=sampler)["joint"]
            return [trial.values for trial in found.trials]

        low, high = ({sampler: asked(sampler, sign) for sampler in SAMPLERS} for sign in (-1, 1))
        assert {sampler: low[sampler] == high[sampler] for sampler in SAMPLERS} == {
            "sobol": True,
            "random": True,
            "tpe": False,
        }
        assert low["tpe"][:4] == high["tpe"][:4]

    def test_sobol_fills_the_space_evenly(self, tmp_path):
        space = {"optimizer.lr": Search(0.0005, 0.2005)}
        found = one(tmp_path, lambda lr, seed: [epoch(0.5)], trials=9, seeds=1, spaces=space)
        places = sorted(int((trial.values["optimizer.lr"] - 0.0005) / 0.2 * 8) for trial in found.trials[1:])
        assert places == list(range(8))

    def test_whole_numbers_and_choices_are_drawn_as_what_they_are(self, tmp_path):
        row = {
            "data": WORLD,
            "method": {"name": "mses", "patience": 3},
            "optimizer": "adam",
            "search": {"method.patience": Search(1, 4), "method.restore": Search(choices=(None, "model", "none"))},
        }
        tried = tuned(tmp_path, {"mses": row}, trials=12, seeds=1)["mses"].trials
        drawn = {key: {trial.values[key] for trial in tried} for key in tried[0].values}
        assert drawn["method.patience"] == {1, 2, 3, 4}
        assert drawn["method.restore"] == {None, "model", "none"}
        assert drawn["optimizer.weight_decay"] == {0.0, 1e-5, 1e-4, 1e-3}
        assert all(type(trial.values["method.patience"]) is int for trial in tried)


class TestValue:
    def test_it_is_the_mean_over_seeds_of_the_best_validation_accuracy_over_epochs(self, tmp_path):
        accuracies = {1000: (0.2, 0.6, 0.5), 1001: (0.4, 0.1, 0.2)}
        found = one(tmp_path, lambda lr, seed: [epoch(a, 2 * a) for a in accuracies[seed]], trials=1)
        assert found.trials[0].accuracies == (0.6, 0.4)
        assert found.accuracy == pytest.approx(0.5)
        assert found.trials[0].nll == pytest.approx(1.0)

    def test_epochs_that_served_the_method_s_own_ends_do_not_count(self, tmp_path):
        found = one(tmp_path, lambda lr, seed: [epoch(0.9, auxiliary=True), epoch(0.3)], trials=1)
        assert found.accuracy == pytest.approx(0.3)

    def test_a_run_that_diverged_counts_as_nothing_right(self, tmp_path):
        found = one(tmp_path, lambda lr, seed: None if seed == 1000 else [epoch(0.8)], trials=1)
        assert (found.accuracy, found.trials[0].nll) == (0.4, None)

    def test_of_equal_accuracies_the_lower_nll_is_chosen_then_the_earlier(self, tmp_path):
        rates = [trial.values["optimizer.lr"] for trial in one(tmp_path / "a", lambda lr, seed: [epoch(0.5)]).trials]
        assert one(tmp_path / "a", lambda lr, seed: []).best == 0
        assert one(tmp_path / "b", lambda lr, seed: [epoch(0.5, 1.0 if lr == rates[3] else 2.0)]).best == 3
        diverged = {rates[1]: None, rates[4]: [epoch(0.0, 9.0)]}
        assert one(tmp_path / "c", lambda lr, seed: diverged.get(lr)).best == 4


class TestTestNumbers:
    """No test number decides anything."""

    @settings(deadline=None, max_examples=4)
    @given(luck=st.randoms(use_true_random=False), sampler=st.sampled_from(SAMPLERS))
    def test_whatever_they_are_the_choice_is_the_same(self, luck, sampler, tmp_path_factory):
        folder = tmp_path_factory.mktemp("tuning")

        def other(made):
            return [
                {**line, "test": {"accuracy": luck.random(), "nll": luck.random()}} for line in Runs().measure(made)
            ]

        tuned(folder / "a", sampler=sampler)
        tuned(folder / "b", runs=Runs(other), sampler=sampler)
        assert choices(folder / "a") == choices(folder / "b")

    def test_permuting_those_of_real_runs_changes_no_choice(self, tmp_path):
        how = {"trials": 4, "seeds": 1, "engine": Inline(), "quiet": True, "sampler": "tpe"}
        tune(ROWS, tmp_path, **how)
        before, records = choices(tmp_path), sorted((tmp_path / "trials").glob("*.jsonl.gz"))
        assert len(records) == 8
        lines = {
            path: [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()] for path in records
        }
        epochs = [line for found in lines.values() for line in found if line["kind"] == "epoch"]
        tests = [line["test"] for line in epochs]
        random.Random(0).shuffle(tests)
        assert tests != [line["test"] for line in epochs]
        for line, other in zip(epochs, tests, strict=True):
            line["test"] = other
        for path, found in lines.items():
            path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in found).encode()))
        (tmp_path / "journal.log").unlink()
        for path in (tmp_path / "chosen").iterdir():
            path.unlink()
        tune(ROWS, tmp_path, **how)
        assert choices(tmp_path) == before


class TestChoice:
    def test_it_is_read_back_as_it_was_returned(self, tmp_path):
        found = tuned(tmp_path)
        assert chosen(tmp_path) == found
        assert found["joint"].trials[0].runs[0] in {path.stem for path in (tmp_path / "trials").iterdir()}

    def test_its_settings_are_the_row_with_the_chosen_values(self, tmp_path):
        found = tuned(tmp_path)["ogm-ge-msam"]
        complete = config(found.settings)
        assert found.values == {
            key: getattr(complete, key.split(".")[0])[key.split(".")[1]] for key in found.plan.space
        }
        assert found.settings["epochs"] == 2

    def test_a_grid_takes_it(self, tmp_path):
        grid = bench.Grid(ROWS, (0, 1))
        found = tuned(tmp_path, grid.rows)
        cells = grid.tuned({row: choice.settings for row, choice in found.items()}).cells()
        assert [cell.optimizer["lr"] for cell in cells[:2]] == [f.values["optimizer.lr"] for f in found.values()]

    def test_what_lies_at_the_edge_of_its_space_is_said(self, tmp_path, capsys):
        found = one(tmp_path, lambda lr, seed: [epoch(lr)], trials=20, quiet=False)
        assert found.edges == ("optimizer.lr",)
        assert "at the edge of its space, a wider one may have better: optimizer.lr (0.0005 to 0.2, log)" in (
            " ".join(capsys.readouterr().err.split())
        )
        middle = one(tmp_path / "middle", lambda lr, seed: [epoch(1 - abs(lr - 0.02))], trials=20)
        assert middle.edges == ()

    def test_the_end_of_an_option_s_range_is_no_edge(self, tmp_path):
        row = {"data": WORLD, "optimizer": "adam", "search": {"optimizer.lr": None}}
        runs = Runs(lambda made: [epoch(1 - made.optimizer["weight_decay"])])
        found = tuned(tmp_path, {"adam": row}, runs)["adam"]
        assert found.values == {"optimizer.weight_decay": 0.0}
        assert found.edges == ()

    def test_quiet_is_quiet_and_optuna_always_is(self, tmp_path, capsys, optuna_says):
        for sampler in SAMPLERS:
            tuned(tmp_path / sampler, sampler=sampler)
        assert capsys.readouterr() == ("", "")
        assert optuna_says == []

    def test_a_row_that_has_been_chosen_is_returned_as_it_is(self, tmp_path):
        before, again = tuned(tmp_path), Runs()
        assert tuned(tmp_path, runs=again) == before
        assert again.asked == []

    def test_nothing_tuned_and_what_is_no_choice(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="No tuned row under"):
            chosen(tmp_path)
        tuned(tmp_path)
        place = tmp_path / "chosen" / "joint.json"
        for content in ("{", "[]", '{"row": "joint"}', place.read_text().replace('"best"', '"bust"')):
            place.write_text(content)
            with pytest.raises(ValueError, match=r"joint\.json is no choice of a tuning .*Move it away"):
                chosen(tmp_path)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                {"seeds": 3},
                "budget: '5 trials (sobol), seeds 1000, 1001, 1002, 2 epochs' != '5 trials (sobol), seeds 1000, 2 epochs'",
            ),
            ({"trials": 7}, "budget: '7 trials"),
            ({"sampler": "tpe"}, "budget: '5 trials (tpe)"),
            (
                {"spaces": {"optimizer.lr": Search(0.01, 0.1)}},
                "space.optimizer.lr: '0.01 to 0.1' != '0.0005 to 0.2, log'",
            ),
            (
                {"rows": {"joint": {"data": WORLD, "epochs": 2, "method": "uniform"}}},
                "row.method.name: 'uniform' != 'joint'",
            ),
            ({"rows": {"joint": {"data": WORLD, "epochs": 2, "batch_size": 8}}}, "row.batch_size: 8 != None"),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_another_plan_in_the_folder(self, tmp_path, change, words):
        tuned(tmp_path)
        with pytest.raises(
            ValueError, match="joint.json is of another plan \\(asked for != found\\): .*" + re.escape(words)
        ):
            tuned(tmp_path, **change)
        (tmp_path / "chosen" / "joint.json").unlink()
        with pytest.raises(ValueError, match="row 'joint' in this folder is of another plan .*" + re.escape(words)):
            tuned(tmp_path, **{"rows": {"joint": ROWS["joint"]}, **change})

    def test_another_process_at_the_same_row(self, tmp_path):
        (tmp_path / ".locks").mkdir()
        with filelock.FileLock(tmp_path / ".locks" / "joint.lock"):
            with pytest.raises(ValueError, match=r"Another process is tuning row 'joint' in .*Let it finish"):
                tuned(tmp_path)
            tuned(tmp_path, {"ogm": ROWS["ogm-ge-msam"]})
        tuned(tmp_path)

    @pytest.mark.parametrize(
        ("rows", "options", "words"),
        [
            ({}, {}, "must be a row"),
            (ROWS, {"trials": 0}, "`trials` must be >= 1, received 0"),
            (ROWS, {"seeds": 0}, "`seeds` must be >= 1, received 0"),
            (ROWS, {"seeds": []}, "all different, received \\[\\]"),
            (ROWS, {"seeds": [3, 3]}, "all different, received \\[3, 3\\]"),
            (ROWS, {"seeds": [-1]}, ">= 0"),
            (ROWS, {"sampler": "sobel"}, "Unknown sampler 'sobel'. Did you mean 'sobol'"),
            ({"a/b": {}}, {}, "Row 'a/b': The name of a row is that of a file"),
            ({"a": {"method": "ogm"}}, {}, "Row 'a': Unknown method 'ogm'. Did you mean 'ogm_ge'"),
        ],
        ids=str,
    )
    def test_what_is_no_budget_or_no_row(self, tmp_path, rows, options, words):
        with pytest.raises(ValueError, match=words):
            tuned(tmp_path, rows, **options)
        assert not list(tmp_path.iterdir())

    def test_seeds_of_tuning_and_of_the_report_are_apart(self):
        seeds_apart(tuning_seeds(3), range(10))
        with pytest.raises(ValueError, match="must be apart, both have 2, 3"):
            seeds_apart([2, 3, 4], range(4))

    def test_without_optuna_it_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "optuna", None)
        monkeypatch.delitem(sys.modules, "msam.bench._studies", raising=False)
        monkeypatch.delattr("msam.bench._studies", raising=False)
        with pytest.raises(ValueError, match=r"Tuning needs Optuna .*pip install 'msam\[tune\]'"):
            tuned(tmp_path)

    def test_runs_that_fail_are_named_and_run_again_the_next_time(self, tmp_path):
        class Broken(Runs):
            def __call__(self, configs, folder, /, **how):
                super().__call__(configs[1:], folder, **how)
                raise bench.Failed("1 of the cells failed")

        with pytest.raises(bench.Failed):
            tuned(tmp_path, runs=Broken())
        again = Runs()
        assert tuned(tmp_path, runs=again) == tuned(tmp_path / "peace")
        assert len(again.made) == 1
