"""`msam train --recipe` and `msam list recipes`."""

import pytest

from msam import cli, recipes
from msam.train import config

NAME = "paper/cremad-late-msam"


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Return a function from tokens to the configuration that `msam train` would train."""
    seen = []

    class Stop(Exception):
        pass

    def caught(settings, *_, **__):
        seen.append(settings)
        raise Stop

    monkeypatch.setattr("msam.cli.train.train", caught)
    monkeypatch.chdir(tmp_path)

    def read(*tokens):
        with pytest.raises(Stop):
            cli.main(["train", *map(str, tokens)])
        return seen.pop()

    return read


def test_a_recipe_is_its_configuration(trained):
    assert trained("--recipe", NAME) == recipes.config(NAME)


def test_flags_go_over_the_file_and_the_file_over_the_recipe(trained, tmp_path):
    (tmp_path / "run.toml").write_text("epochs = 7\nseed = 2\n[sharpness]\nrho = 0.4\n[data]\nroot = 'there'\n")
    found = trained("--recipe", NAME, "--config", "run.toml", "--seed", 3, "--data.frames", 2)
    assert found == recipes.config(NAME, epochs=7, seed=3, sharpness={"rho": 0.4}, data={"root": "there", "frames": 2})


def test_flags_of_the_recipes_parts_are_known_and_another_part_drops_the_recipes_options(trained):
    assert trained("--recipe", NAME, "--sharpness.rho", 0.2).sharpness["rho"] == 0.2
    other = trained("--recipe", NAME, "--sharpness", "asam", "--sharpness.rho", 0.7)
    assert other.sharpness == config(sharpness={"name": "asam", "rho": 0.7}).sharpness
    assert trained("--recipe", NAME, "--sharpness", "none").sharpness is None
    assert trained("--recipe", NAME, "--method", "agm").method == config(method="agm").method
    assert trained("--recipe", "paper/cremad-late-agm", "--method.alpha", 2.0).method["cap"] == 10.0


def test_encoders_are_flags_too(trained):
    found = trained("--recipe", NAME, "--encoders", "audio=mlp,video=mlp")
    assert found.encoders == {"audio": "mlp", "video": "mlp"}


def test_an_unknown_recipe_is_one_message(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["train", "--recipe", "paper/cremad-late-sma"])
    assert done.value.code == 1
    printed = capsys.readouterr().err
    assert "Unknown recipe 'paper/cremad-late-sma'. Did you mean 'paper/cremad-late-sam'?" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("kind", ["recipes", "all"])
def test_the_list_names_them_all(kind, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as done:
        cli.main(["list", kind])
    assert not done.value.code
    lines = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    rows = [cells for cells in lines if len(cells) == 5 and cells[1].startswith("paper/")]
    found = [begin + row for _, begin, _, ends, _ in rows for row in ends.split(", ")]
    assert found == recipes.paper.names()
    first = [cells[1] for cells in lines if len(cells) == 5 and cells[1].startswith("recommended")]
    assert [*first, *found] == recipes.names()
