"""One configuration, the same from Python, TOML and flags; whatever is wrong in it is named."""

import json
import re

import pytest

from msam import cli, data, models, train
from msam.train import RunConfig, parts
from msam.train.config import KINDS, config, options, part_name, read_toml

VALUES = {
    "seed": 3,
    "epochs": 7,
    "batch_size": 9,
    "contributions": "logit",
    "absent": "input",
    "record_every": 5,
    "checkpoint_every": 4,
    "precision": "64-true",
    "accelerator": "auto",
    "encoders": {"a": "mlp", "b": "patch_cnn"},
    "threads": 2,
    "probes": ["gradients", "landscape"],
}
PARTS = {
    "data": {"name": "dial", "signal": [4.0, 3.0], "modes": [2, 1], "redundancy": 0.5, "train_size": 40},
    "fusion": {"name": "maxout", "hidden": [4, 3], "dropout": 0.25, "batch_norm": False},
    "method": {"name": "uniform", "weight": 0.5},
    "sharpness": {"name": "msam", "rho": 0.3, "monitor": 2},
    "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.5, "weight_decay": 0.0, "nesterov": True},
    "schedule": {"name": "step", "at": 0.5, "gamma": 0.2},
}


def toml(raw) -> str:
    plain = "".join(f"{key} = {json.dumps(value)}\n" for key, value in raw.items() if not isinstance(value, dict))
    tables = [
        f"[{kind}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in part.items())
        for kind, part in raw.items()
        if isinstance(part, dict)
    ]
    return plain + "".join(tables)


def flags(raw) -> list[str]:
    tokens = []
    for key, value in raw.items():
        if not isinstance(value, dict):
            tokens += [f"--{key}", ",".join(value) if isinstance(value, list) else str(value)]
            continue
        if "name" not in value:
            tokens += [f"--{key}", ",".join(f"{name}={word}" for name, word in value.items())]
            continue
        tokens += [f"--{key}", value["name"]]
        for option, setting in value.items():
            if option != "name":
                shown = ",".join(map(str, setting)) if isinstance(setting, list) else str(setting)
                tokens += [f"--{key}.{option}", shown]
    return tokens


@pytest.fixture
def from_command_line(monkeypatch, tmp_path):
    """Return a function from tokens to the configuration that `msam train` would train."""
    seen = []

    class Stop(Exception):
        pass

    def caught(settings, *_, **__):
        seen.append(settings)
        raise Stop

    monkeypatch.setattr("msam.cli.train.train", caught)
    monkeypatch.chdir(tmp_path)

    def read(*tokens) -> RunConfig:
        with pytest.raises(Stop):
            cli.main(["train", *map(str, tokens)])
        return seen.pop()

    return read


def test_values_for_every_field_are_tried_here():
    assert {*VALUES, *PARTS} == set(RunConfig.model_fields)
    for key, value in VALUES.items():
        assert RunConfig.model_fields[key].default != value


def test_python_toml_and_flags_agree_on_every_field(tmp_path, from_command_line):
    raw = VALUES | PARTS
    wanted = config(raw)
    (tmp_path / "run.toml").write_text(toml(raw))
    assert config(read_toml(tmp_path / "run.toml")) == wanted
    assert from_command_line("--config", "run.toml") == wanted
    assert from_command_line(*flags(raw)) == wanted
    assert from_command_line(*[f.replace("_", "-") if f.startswith("--") else f for f in flags(raw)]) == wanted
    dump = wanted.model_dump()
    assert {key: dump[key] for key in VALUES} == VALUES
    for kind, part in PARTS.items():
        assert {key: dump[kind][key] for key in part} == part


def test_defaults_are_the_same_from_nothing_from_an_empty_file_and_from_no_flags(tmp_path, from_command_line):
    (tmp_path / "run.toml").touch()
    assert from_command_line() == from_command_line("--config", "run.toml") == config() == config({})
    for kind in KINDS:
        part = getattr(config(), kind)
        assert (part["name"] if part else "none") == KINDS[kind].default


def test_flags_go_before_the_file(tmp_path, from_command_line):
    (tmp_path / "run.toml").write_text("seed = 3\nepochs = 5\n[sharpness]\nname = 'msam'\nrho = 0.3\n")
    found = from_command_line("--config", "run.toml", "--seed", 4, "--sharpness.rho", 0.4)
    assert (found.seed, found.epochs, found.sharpness["name"], found.sharpness["rho"]) == (4, 5, "msam", 0.4)


def test_a_part_named_on_the_command_line_drops_the_options_of_the_files_other_part(tmp_path, from_command_line):
    (tmp_path / "run.toml").write_text(
        "[optimizer]\nname = 'sgd'\nlr = 0.7\nnesterov = true\n[fusion]\nname='maxout'\n"
    )
    other = from_command_line("--config", "run.toml", "--optimizer", "adam", "--fusion", "early")
    assert other.optimizer == config(optimizer="adam").optimizer
    assert other.fusion == config(fusion="early").fusion
    same = from_command_line("--config", "run.toml", "--optimizer", "sgd")
    assert (same.optimizer["lr"], same.optimizer["nesterov"]) == (0.7, True)


def test_encoders_in_place_of_the_datasets(tmp_path):
    other = config(data="avdigits", encoders="image=mlp")
    found = parts.model(other, data.card("avdigits")).encoders
    plain = parts.model(config(data="avdigits"), data.card("avdigits")).encoders
    assert str(found["audio"]) == str(plain["audio"])
    assert str(found["image"]) == str(models.encoder("mlp", (1, 8, 8))) != str(plain["image"])
    assert "encoders" not in config().chosen()
    assert other.chosen()["encoders"] == {"image": "mlp"}
    with pytest.raises(ValueError, match=r"Unknown modality 'imag'\. Did you mean 'image'\?"):
        parts.model(config(encoders={"imag": "mlp"}), data.card("avdigits"))
    with pytest.raises(ValueError, match=r"'transformer' is for sequences .*received \(1, 8, 8\)"):
        parts.model(config(encoders={"image": "transformer"}), data.card("avdigits"))


def test_a_configuration_read_back_from_its_own_dump_is_the_same():
    for raw in ({}, VALUES | PARTS, {"sharpness": None}):
        made = config(raw)
        assert config(made.model_dump()) == made
        assert config(json.loads(json.dumps(made.model_dump()))) == made


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"epoch": 3}, r"Unknown key 'epoch'\. Did you mean 'epochs'\? Known: .*batch_size"),
        ({"encoders": "audio"}, r"`encoders` must be modality=name pairs, as in audio=mlp,text=mlp, received 'audio'"),
        ({"encoders": {"audio": "mpl"}}, r"Unknown encoder 'mpl'\. Did you mean 'mlp'\?"),
        ({"encoders": {"audio": 3}}, r"`encoders` must be a valid string, received 3"),
        ({"sharpnes": "sam"}, r"Unknown key 'sharpnes'\. Did you mean 'sharpness'\?"),
        (
            {"sharpness": {"name": "sam", "rh": 1}},
            r"'sharpness\.rh' of sharpness 'sam'\. Did you mean 'sharpness\.rho'\?",
        ),
        ({"method": {"name": "joint", "weight": 1}}, r"Unknown key 'method\.weight' of method 'joint'.* Known: none"),
        ({"data": {"train": 3}}, r"'data\.train' of data 'avdigits'\. Did you mean 'data\.train_size'\?"),
        ({"method": "unifrom"}, r"Unknown method 'unifrom'\. Did you mean 'uniform'\?"),
        ({"fusion": "lat"}, r"Unknown fusion 'lat'\. Did you mean 'late'\?"),
        ({"optimizer": "adamm"}, r"Unknown optimizer 'adamm'\. Did you mean 'adam"),
        ({"schedule": "cosin"}, r"Unknown schedule 'cosin'\. Did you mean 'cosine'\?"),
        ({"sharpness": {"rho": 0.1}}, r"`sharpness\.rho` is given but no sharpness is chosen"),
        ({"seed": -1}, "`seed` must be >= 0, received -1"),
        ({"epochs": 0}, "`epochs` must be >= 1, received 0"),
        ({"sharpness": {"name": "sam", "rho": -0.1}}, r"`sharpness\.rho` must be >= 0, received -0\.1"),
        ({"fusion": {"name": "maxout", "dropout": 1}}, r"`fusion\.dropout` must be >= 0 and < 1, received 1"),
        ({"optimizer": {"lr": 0}}, r"`optimizer\.lr` must be > 0, received 0"),
        ({"optimizer": {"lr": float("nan")}}, r"`optimizer\.lr` must be .*finite"),
        ({"optimizer": {"lr": float("inf")}}, r"`optimizer\.lr` must be .*finite"),
        ({"epochs": "three"}, "`epochs` must be a valid integer, received 'three'"),
        ({"epochs": 2.5}, r"`epochs` must be a valid integer.*received 2\.5"),
        ({"optimizer": {"nesterov": "perhaps"}}, r"`optimizer\.nesterov` must be a valid boolean.*received 'perhaps'"),
        (
            {"contributions": "probabilty"},
            r"`contributions` must be one of .*received 'probabilty'\. Did you mean 'prob",
        ),
        (
            {"precision": "16-mix"},
            r"`precision` must be one of '32-true'.*received '16-mix'\. Did you mean '16-mixed'\?",
        ),
        ({"fusion": {"name": "maxout", "hidden": "4,x"}}, r"`fusion\.hidden` must be a valid integer.*'x'"),
        ({"method": 3}, "Unknown method '3'"),
        ({"method": {"name": "joint", "name2": 1}}, r"Unknown key 'method\.name2'"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(raw, message):
    with pytest.raises(ValueError, match=message):
        config(raw)


def test_every_wrong_value_of_a_level_is_named_at_once():
    with pytest.raises(ValueError, match="`epochs` must be") as error:
        config(epochs="x", batch_size="y")
    assert "`batch_size` must be" in str(error.value)


def test_strings_are_read_as_what_is_wanted():
    made = config(seed="3", fusion={"name": "maxout", "hidden": "4,3", "batch_norm": "false", "dropout": "0.5"})
    assert made.seed == 3
    assert made.fusion == {"name": "maxout", "hidden": [4, 3], "dropout": 0.5, "batch_norm": False}
    assert config(data={"name": "dial", "signal": "4, 3"}).data["signal"] == [4.0, 3.0]


def test_a_file_that_is_not_there_or_no_toml_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"No configuration file .*nowhere\.toml"):
        read_toml(tmp_path / "nowhere.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = 1\nepochs = = 2\n")
    with pytest.raises(ValueError, match=r"broken.toml is not TOML: .*line 2"):
        read_toml(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not TOML"):
        read_toml(broken)
    with pytest.raises(ValueError, match="Cannot read configuration file"):
        read_toml(tmp_path)


def test_a_configuration_cannot_be_changed_and_names_its_run():
    made = config(seed=4, sharpness={"name": "msam", "rho": 0.3})
    with pytest.raises(ValueError, match="frozen"):
        made.seed = 5
    assert made.run_name().startswith("avdigits-late-joint-msam-seed4-")
    names = {config(raw).run_name() for raw in ({}, {"seed": 1}, {"epochs": 3}, {"optimizer": {"lr": 0.01}})}
    assert len(names) == 4
    assert config({"seed": 1}).run_name() == config({"seed": "1"}).run_name()


def test_a_name_tells_what_was_chosen_and_no_option_that_was_left_as_it_is():
    rule = {"name": "msam", "rho": 0.3}
    made = config(sharpness=rule, seed=1)
    assert made.run_name() == config(sharpness={**rule, "monitor": 0}, seed=1, epochs=20).run_name()
    assert made.chosen() == {
        "seed": 1,
        "data": {"name": "avdigits"},
        "fusion": {"name": "late"},
        "method": {"name": "joint"},
        "sharpness": {"name": "msam", "rho": 0.3},
        "optimizer": {"name": "sgd"},
        "schedule": {"name": "step"},
    }
    assert config(sharpness={**rule, "monitor": 5}, seed=1).run_name() != made.run_name()


def test_options_are_read_off_signatures_with_help():
    for kind, part in KINDS.items():
        for name in part.names():
            for key, option in options(kind, name).items():
                assert key not in part.given
                assert option.default is not None or re.search("None|Optional", str(option.type))
    assert part_name("method", None) == "joint"
    assert train.config is config


def test_where_the_data_lie_does_not_change_what_a_run_is(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "somewhere.py").write_text("def somewhere(*, root: str = '', size: int = 3): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    here, there, other = (
        config(data={"name": "lab.somewhere", **options})
        for options in ({"root": "/a"}, {"root": "/b"}, {"root": "/a", "size": 4})
    )
    assert here.run_name() == there.run_name() != other.run_name()
    assert here.decisive() == there.decisive() != other.decisive()
    assert here.data["root"] == "/a"
