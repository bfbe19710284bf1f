"""The paper's recipes: every row resolves, its model is built, its values are those of the sources, the page shows them."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from msam import data, methods, recipes
from msam.recipes import paper
from msam.recipes._methods import METHODS
from msam.recipes._values import DATASETS
from msam.train import config, parts

ROOT = Path(__file__).parents[2]
NAMES = paper.names()
ROWS = {name: paper.found(name) for name in NAMES}
SETTINGS = [(dataset, fusion) for dataset in DATASETS for fusion in ("late", "early")]


def card(settings):
    return data.card(settings.data["name"], **{key: v for key, v in settings.data.items() if key != "name"})


@pytest.mark.parametrize(("dataset", "fusion"), SETTINGS)
def test_every_recipe_resolves_and_its_model_is_built_from_what_is_known_without_files(dataset, fusion):
    mine = [name for name, row in ROWS.items() if (row.dataset, row.fusion) == (dataset, fusion)]
    assert len(mine) > 15
    for name in mine:
        settings = recipes.config(name)
        known = card(settings)
        assert tuple(known.shapes) == DATASETS[dataset].modalities
        with torch.device("meta"):
            model = parts.model(settings, known)
        wanted = (settings.method["modality"],) if settings.method["name"] == "unimodal" else tuple(known.shapes)
        assert model.modalities == wanted
        assert model.fusion.num_classes == known.num_classes
        optimizer = parts.optimizer(settings, model)
        rule = parts.rule(settings, optimizer, model)
        assert (rule is None) == (ROWS[name].row not in ("sam", "msam"))


@pytest.mark.parametrize(("dataset", "fusion"), SETTINGS)
def test_every_method_has_its_row_where_it_is_defined(dataset, fusion):
    rows = {row.row for row in ROWS.values() if (row.dataset, row.fusion) == (dataset, fusion)}
    missing = {name for name in methods.names() if not any(row.startswith(name) for row in rows)}
    assert missing == ({"reconboost"} if fusion == "early" else set())
    assert {"sam", "msam", *(f"unimodal_{m}" for m in DATASETS[dataset].modalities)} <= rows


@pytest.mark.parametrize("name", NAMES)
def test_what_all_rows_share_is_that_of_the_paper(name):
    found = recipes.settings(name)
    assert found["optimizer"] == {"name": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}
    assert found["schedule"] == {"name": "step_every", "period": 70, "gamma": 0.1}
    assert (found["batch_size"], found["epochs"]) == (64, 100)


@pytest.mark.parametrize("epoch", [0, 69, 70, 99, 140])
def test_the_learning_rate_falls_every_70_epochs_whatever_the_length_of_the_run(epoch):
    for epochs in (100, 200):
        factor = parts.schedule(recipes.config("paper/cremad-late-joint", epochs=epochs))(epoch)
        assert factor == pytest.approx(0.1 ** (epoch // 70))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("paper/avmnist-late-agm", {"alpha": 2.5}),
        ("paper/cremad-early-agm", {"alpha": 1.5, "cap": 10.0}),
        ("paper/urfunny-late-agm", {"alpha": 4.0, "cap": 7.0}),
        ("paper/urfunny-early-agm", {"alpha": 6.0, "cap": 7.0}),
        ("paper/cremad-late-ogm_ge", {"alpha": 0.8, "last_epoch": 50, "extend": False}),
        ("paper/cremad-early-ogm_ge", {"extend": True}),
        ("paper/urfunny-late-ogm_ge", {"extend": True}),
        ("paper/urfunny-late-pmr", {"extend": True}),
        ("paper/ave-late-pmr", {"extend": False, "mu": 0.01}),
        ("paper/avmnist-late-mses", {"patience": 10}),
        ("paper/cremad-late-mses", {"patience": 80}),
        ("paper/urfunny-late-mses", {"patience": 30}),
        ("paper/avmnist-late-mslr", {"rates": [1.3, 0.7], "window": 5}),
        ("paper/cremad-late-mslr", {"rates": [0.9, 1.1]}),
        ("paper/urfunny-late-mslr", {"rates": [0.9, 1.4, 0.7]}),
        ("paper/ave-late-mslr", {"rates": []}),
        ("paper/cremad-late-reconboost", {"w1": 5.0, "w2": 1.0, "alpha": 0.5}),
        ("paper/ave-late-reconboost", {"w1": 4.0, "w2": 1.0}),
        ("paper/cremad-late-mmpareto", {"gamma": 1.5}),
        ("paper/ave-early-mlb", {"alpha": 0.8, "beta_max": 2.0}),
    ],
)
def test_hyper_parameters_are_those_of_the_sources(name, values):
    found = recipes.config(name).method
    assert {key: found[key] for key in values} == values


def test_the_fusions_are_those_of_the_paper():
    fusions = {(row.dataset, row.fusion): recipes.settings(name)["fusion"] for name, row in ROWS.items()}
    for (dataset, fusion), part in fusions.items():
        if fusion == "late":
            assert part["name"] == "late"
        elif dataset == "ave_features":
            assert (part["name"], part["threshold"], part["dropout"]) == ("psp", 0.099, 0.1)
        else:
            assert (part["name"], part["hidden"], part["dropout"]) == ("maxout", (2048, 1024), 0.3)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_a_source_and_stands_in_the_configuration(name):
    found = paper.values(name)
    assert len({value.key for value in found}) == len(found)
    settings = recipes.config(name).model_dump()
    for key, value, source, _ in found:
        assert source in ("paper", "code", "ours")
        part, _, option = key.partition(".")
        inside = settings[part][option] if option else settings[part]
        assert inside == (list(value) if isinstance(value, tuple) else value)


def test_what_is_said_of_methods_is_said_of_what_there_is():
    assert set(METHODS) <= set(methods.names())
    for layers in METHODS.values():
        for where in layers:
            dataset, _, fusion = where.partition("-")
            assert where == "" or (dataset in DATASETS and fusion in ("", "late", "early"))


def test_overrides_go_over_the_recipe():
    name = "paper/cremad-late-msam"
    plain = recipes.config(name)
    found = recipes.config(name, epochs=3, sharpness={"every": 1}, data={"frames": 2}, optimizer="adam")
    assert (found.epochs, found.data["frames"], found.data["spectrogram"]) == (3, 2, plain.data["spectrogram"])
    assert found.sharpness == plain.sharpness
    assert found.optimizer == config(optimizer="adam").optimizer
    assert recipes.config(name, sharpness="none").sharpness is None
    with pytest.raises(ValueError, match=r"Unknown key 'epoch'\. Did you mean 'epochs'\?"):
        recipes.config(name, epoch=3)


def test_an_unknown_name_is_answered_with_the_nearest():
    for ask in (recipes.config, recipes.settings, paper.values, paper.found):
        with pytest.raises(
            ValueError, match=r"'paper/cremad-late-masm'\. Did you mean 'paper/cremad-late-msam'\? `msam"
        ):
            ask("paper/cremad-late-masm")


@pytest.fixture
def builder():
    spec = importlib.util.spec_from_file_location("build_recipes", ROOT / "tools" / "build_recipes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_tool_would_write(builder):
    page = builder.PAGE.read_text()
    assert page == builder.page(page), "run tools/build_recipes.py"


def test_check_fails_on_another_page(builder, tmp_path, monkeypatch):
    old = builder.PAGE.read_text()
    monkeypatch.setattr(builder, "PAGE", tmp_path / "recipes.md")
    builder.PAGE.write_text(old.replace("| `0.001` | paper |", "| `0.002` | paper |"))
    with pytest.raises(SystemExit, match="Run it"):
        builder.main(check=True)
    builder.main()
    assert builder.PAGE.read_text() == old
    builder.main(check=True)


def test_every_value_of_every_recipe_stands_in_the_page_with_its_source(builder):
    page = builder.PAGE.read_text()
    lines = [re.sub(r" +", " ", line) for line in page.splitlines() if line.startswith("|")]
    for name in NAMES:
        for value in paper.values(name):
            if value.key in ("method.name", "method.modality", "method.extend"):
                continue  # said in words
            cells = " | ".join(builder._cells(value)[:3])
            assert any(cells in line for line in lines), (name, value)
