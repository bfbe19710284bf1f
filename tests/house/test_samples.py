"""Every sample in README, docs and docstrings runs; every public name is documented and listed."""

import doctest
import importlib
import inspect
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import msam
from msam import cli
from tests.examples._by_hand import THIRD_PARTY

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted(m.name for m in pkgutil.walk_packages(msam.__path__, "msam."))
PACKAGES = [
    "msam",
    "msam.data",
    "msam.diagnosis",
    "msam.methods",
    "msam.models",
    "msam.sharpness",
    "msam.train",
    "msam.train.probes",
    "msam.bench",
    "msam.bench.engines",
    "msam.loggers",
    "msam.report",
]
OTHER_COMMANDS = ("make", "pip", "git", "python", "apt-get", "cd")
BLOCK = re.compile(r"```(python|bash|console)\n(.*?)```", re.S)


@pytest.mark.filterwarnings(*THIRD_PARTY)
@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_block_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    """Python runs as one program; a block that begins with `# path.py` is also written there. `msam` lines run in order."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.split(".")[0] == "my_lab"]:  # of another test's folder
        monkeypatch.delitem(sys.modules, name)
    known = set(sys.modules)
    namespace = {"__name__": "sample"}
    for language, text in BLOCK.findall(page.read_text()):
        if language == "python":
            named = re.match(r"# (\S+\.py)\n", text)
            if named:
                place = tmp_path / named[1]
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text)
                importlib.invalidate_caches()
            exec(compile(text, str(page), "exec", dont_inherit=True), namespace)
        else:
            for line in text.replace("\\\n", " ").splitlines():
                _run(line.removeprefix("$ "))
    for name in set(sys.modules) - known:
        if name.split(".")[0] == "my_lab":
            del sys.modules[name]


def _run(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[:2] == ["python", "-m"] and words[2].startswith("tests.fixtures."):
        subprocess.run([sys.executable, *words[1:]], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        return
    if not words or (words[0] != "msam" and words[0] in OTHER_COMMANDS):
        return
    assert words[0] == "msam", f"unknown command in a sample: {line}"
    try:
        cli.main(words[1:])
    except SystemExit as done:
        assert not done.code, line  # noqa: PT017


@pytest.mark.parametrize("name", ["msam", *MODULES])
def test_the_doctests_of_a_module_pass(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_typed_documented_and_in_the_api_page(package):
    module = importlib.import_module(package)
    page = (ROOT / "docs" / "api.md").read_text()
    for name in module.__all__:
        value = getattr(module, name)
        assert f"`{name}`" in page, f"{package}.{name} is not in docs/api.md"
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{package}.{name} has no docstring"
        for function in _functions(value):
            hints = function.__annotations__
            parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
            assert set(parameters) <= set(hints), f"{package}.{name}.{function.__name__} is not typed"
            assert "return" in hints, f"{package}.{name}.{function.__name__} does not say what it returns"


def _functions(value):
    if inspect.isfunction(value):
        yield value
    elif inspect.isclass(value) and value.__module__.startswith("msam"):
        for name, member in vars(value).items():
            if inspect.isfunction(member) and not name.startswith("_"):
                yield member
