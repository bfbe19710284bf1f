"""Runs that are trained together are the runs that they are alone."""

from itertools import product

import pytest
import torch

from msam import methods, sharpness
from msam.bench.stack import groups, stackable, train_together, worthwhile
from msam.record import read
from msam.train import config, load_model, train
from tests.bench.stacks import DIAL, DIGITS, furthest, lines, seeds

METHODS = [name for name in methods.names() if methods.load(name).stackable]
RULES = ["none", *(name for name in sharpness.names() if sharpness.load(name).stackable is not None)]
ROUNDING = 1e-9


def together_and_alone(configs, folder, *, precise=ROUNDING):
    """Train runs both ways; records and checkpoints must be the same to rounding."""
    places = [folder / f"together{config.seed}" for config in configs]
    train_together(configs, places)
    for settings, place in zip(configs, places, strict=True):
        alone = folder / f"alone{settings.seed}"
        train(settings, alone)
        assert furthest(lines(place), lines(alone)) <= precise
        mine, theirs = (torch.load(f / "checkpoint.pt", weights_only=True) for f in (place, alone))
        for part in ("at", "record"):
            mine.pop(part), theirs.pop(part)  # time is in it
        assert furthest(plain(mine), plain(theirs)) <= precise


def plain(value):
    """Return nested tensors as lists."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def test_the_usual_pairs_can_be_stacked():
    assert {"joint", "uniform", "unimodal", "ensemble", "ogm_ge", "mlb"} <= set(METHODS)
    assert {"none", "sam", "gnp", "msam"} <= set(RULES)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_can_be_stacked_changes_the_loss_and_the_gradients_and_no_more(name):
    own = vars(methods.load(name))
    assert not {"gradients", "stage", "stage_begin", "stage_end", "rate", "epoch_end"} & set(own)


@pytest.mark.parametrize(("method", "rule"), list(product(METHODS, RULES)))
def test_whoever_says_so_trains_in_a_stack_as_alone(method, rule, tmp_path):
    configs = seeds(2, method=method, sharpness=rule)
    assert worthwhile(configs[0])
    together_and_alone(configs, tmp_path)
    assert read(tmp_path / "together0" / "record.jsonl").end["steps"] == 20


@pytest.mark.parametrize(
    "chosen",
    [
        {
            "sharpness": {"name": "msam", "compensate": True, "rho_schedule": "learning_rate"},
            "epochs": 4,
            "record_every": 0,
        },
        {"sharpness": {"name": "msam", "share": 0.3}, "optimizer": {"name": "adamw"}, "contributions": "likelihood"},
        {"sharpness": {"name": "gnp", "alpha": 0.4, "rho_schedule": "inverse_sqrt"}, "optimizer": {"name": "adam"}},
        {"sharpness": "sam", "optimizer": {"momentum": 0.0}, "schedule": "cosine", "record_every": 3},
        {"sharpness": "msam", "fusion": "concat", "absent": "input"},
        {"sharpness": "msam", "fusion": "shared", "contributions": "accuracy"},
        {"sharpness": {"name": "sam", "rho": 0.0}, "fusion": "early"},
        {"sharpness": "msam", "fusion": {"name": "maxout", "hidden": [8], "dropout": 0.0}},
    ],
    ids=lambda chosen: "-".join(map(str, chosen)),
)
def test_options_optimizers_and_fusions(chosen, tmp_path):
    together_and_alone(seeds(2, **chosen), tmp_path)


def test_convolutions_and_batch_statistics(tmp_path):
    configs = [c.model_copy(update={"data": {**c.data, "seed": 0}}) for c in seeds(2, data=DIGITS, sharpness="msam")]
    assert stackable(configs[0])
    assert not worthwhile(configs[0])
    together_and_alone(configs, tmp_path)


def test_in_single_precision_runs_agree_to_its_rounding(tmp_path):
    together_and_alone(seeds(3, precision="32-true", sharpness="msam"), tmp_path, precise=1e-3)


def test_a_folder_is_that_of_a_run(tmp_path):
    configs = seeds(2, epochs=1)
    lane, alone = tmp_path / "0", tmp_path / "alone"
    train_together(configs, [lane, tmp_path / "1"])
    train(configs[0], alone)
    weights = [load_model(folder).state_dict() for folder in (lane, alone)]
    assert furthest(*map(plain, weights)) <= ROUNDING
    assert {f.name for f in lane.iterdir()} == {f.name for f in alone.iterdir()}
    assert (lane / "checkpoint.pt").stat().st_size < 1.1 * (alone / "checkpoint.pt").stat().st_size


def test_how_many_are_stacked_changes_no_bit(tmp_path):
    configs = seeds(5, precision="32-true", sharpness="msam")
    train_together(configs, [tmp_path / f"five{i}" for i in range(5)])
    train_together(configs[1:3], [tmp_path / f"two{i}" for i in (1, 2)])
    for i in (1, 2):
        five, two = (read(tmp_path / f"{name}{i}" / "record.jsonl").end["weights"] for name in ("five", "two"))
        assert five == two


class TestWhoGoesTogether:
    def test_runs_that_differ_in_seeds(self):
        joint = [config(data={**DIAL, "seed": s}, seed=s) for s in range(3)]
        sam = [config(data=DIAL, sharpness="sam", seed=s) for s in range(3)]
        mixed = [joint[0], sam[0], joint[1], sam[1], sam[2], joint[2]]
        assert groups(mixed) == [joint, sam]

    def test_ten_at_most_and_the_same_whatever_else_is_asked_for(self):
        runs = [config(data=DIAL, seed=s) for s in range(25)]
        whole = groups(runs)
        assert [len(group) for group in whole] == [10, 10, 5]
        assert groups(runs[13:]) == [whole[1][3:], whole[2]]

    @pytest.mark.parametrize(
        "chosen",
        [
            {"method": "agm"},
            {"method": "modality_dropout"},
            {"sharpness": "asam"},
            {"sharpness": {"name": "msam", "scope": "dominant"}},
            {"sharpness": {"name": "msam", "every": 2}},
            {"sharpness": {"name": "sam", "monitor": 1}},
            {"fusion": {"name": "early", "dropout": 0.5}},
            {"precision": "bf16-mixed"},
            {"checkpoint_every": 3},
            {"data": DIGITS},
            {"method": "ogm_ge", "fusion": "early"},
            {"data": {"name": "cremad", "root": "nowhere"}},
        ],
        ids=str,
    )
    def test_others_are_alone(self, chosen):
        runs = [config({"data": DIAL, **chosen}, seed=s) for s in range(2)]
        assert groups(runs) == [[run] for run in runs]

    def test_every_run_is_in_one_group(self):
        runs = [
            config(data=DIAL, method=m, sharpness=r, seed=s) for m, r, s in product(("joint", "agm"), RULES, range(3))
        ]
        found = [run for group in groups(runs) for run in group]
        assert sorted(r.run_name() for r in found) == sorted(r.run_name() for r in runs)


class TestWhatIsRefused:
    def test_runs_that_differ_in_more(self, tmp_path):
        runs = [*seeds(1), *seeds(1, batch_size=8)]
        with pytest.raises(ValueError, match=r"nothing but seeds, found batch_size: 16 != 8"):
            train_together(runs, [tmp_path / "a", tmp_path / "b"])
        assert not list(tmp_path.iterdir())

    def test_runs_that_cannot_be_stacked(self, tmp_path):
        with pytest.raises(ValueError, match=r"cannot be stacked.*one by one"):
            train_together(seeds(2, method="pmr"), [tmp_path / "a", tmp_path / "b"])

    def test_a_folder_of_another_run(self, tmp_path):
        train(seeds(1, batch_size=8)[0], tmp_path / "a")
        with pytest.raises(ValueError, match=r"another configuration.*batch_size"):
            train_together(seeds(2), [tmp_path / "a", tmp_path / "b"])
