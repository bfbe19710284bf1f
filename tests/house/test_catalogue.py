"""The catalogue of methods in the docs is what the methods say of themselves."""

import importlib.util
from pathlib import Path

import pytest

from msam import cli, methods
from msam.methods._catalogue import choices, entries, entry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def builder():
    spec = importlib.util.spec_from_file_location("build_catalogue", ROOT / "tools" / "build_catalogue.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_tool_would_write(builder):
    assert (ROOT / "docs" / "methods.md").read_text() == builder.page(), "run tools/build_catalogue.py"


def test_check_fails_on_another_page(builder, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "PAGE", tmp_path / "methods.md")
    with pytest.raises(SystemExit, match="Run it"):
        builder.main(check=True)
    builder.main()
    builder.main(check=True)


def test_every_method_has_its_row_and_its_section(builder):
    page = builder.page()
    for name in methods.names():
        assert f"\n## {name}\n" in page
        assert page.count(f"| [{name}](#{name}) |") == 2


@pytest.mark.parametrize("found", entries(), ids=lambda e: e.name)
def test_every_entry_is_complete(found):
    assert found.what.endswith(".")
    assert all(getattr(found, key) for key in ("title", "paper", "family", "changes", "heads", "fusions", "modalities"))
    assert float(found.passes) > 0
    assert found.fusions.startswith("late")


def test_choices_begin_with_the_default():
    for name in methods.names():
        kind = methods.load(name)
        for key, words in choices(kind).items():
            default = getattr(kind(), key)
            assert words[0] == ("the variant's" if default is None else default)


def test_the_list_on_the_console_says_the_same(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "600")
    with pytest.raises(SystemExit) as done:
        cli.main(["list", "methods"])
    assert not done.value.code
    printed = " ".join(capsys.readouterr().out.split())
    for name in methods.names():
        assert f"paper: {entry(name).paper}"[:40] in printed
        assert f"passes: {entry(name).passes}" in printed
