"""The rules of the house: imports point down, importing is cheap, files fit in a sitting."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "msam"
FILES = sorted(SOURCE.rglob("*.py"))
FLOORS = {
    "types": 0,
    "checks": 0,
    "record": 0,
    "_files": 0,
    "_missing": 0,
    "_modules": 0,
    "_registry": 0,
    "selection": 1,
    "tasks": 1,
    "shapley": 1,
    "sharpness": 1,
    "models": 2,
    "monitor": 2,
    "data": 2,
    "methods": 3,
    "train": 4,
    "bench": 5,
    "diagnosis": 5,
    "loggers": 5,
    "recipes": 5,
    "report": 6,
    "cli": 7,
}
FRONT_DOOR = 2
SIBLINGS: dict[str, set[str]] = {
    "_registry": {"checks"},
    "record": {"_files"},
    "shapley": {"tasks"},
    "sharpness": {"shapley"},
    "recipes": {"bench"},
}


def unit(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return the units of msam that a file imports, anywhere in it."""
    units = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "msam":
            parts = node.module.split(".")
            units |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            units |= {n.name.split(".")[1] for n in node.names if n.name.startswith("msam.")}
    return {u for u in units if u in FLOORS}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    mine = unit(path)
    if mine == "__init__":
        assert all(FLOORS[other] <= FRONT_DOOR for other in imported(path))
        return
    higher = {other for other in imported(path) - {mine} if FLOORS[other] >= FLOORS[mine]} - SIBLINGS.get(mine, set())
    assert not higher, f"{path.name} is on floor {FLOORS[mine]} and imports {higher}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_file_lives_on_a_floor_and_imports_by_full_names(path):
    assert unit(path) in {*FLOORS, "__init__"}
    assert not any(isinstance(n, ast.ImportFrom) and n.level for n in ast.walk(ast.parse(path.read_text())))


def test_the_report_reads_records_only():
    for path in (SOURCE / "report").rglob("*.py"):
        assert imported(path) <= {"report", "record", "selection", "checks", "_files"}, path
        nodes = list(ast.walk(ast.parse(path.read_text())))
        modules = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        modules |= {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
        assert not {m for m in modules if m.split(".")[0] in ("torch", "lightning_fabric")}, path


def test_only_the_engine_knows_the_engine():
    users = {p.name for p in FILES if "lightning_fabric" in p.read_text()}
    assert users == {"engine.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_file_fits_in_a_sitting(path):
    assert len(path.read_text().splitlines()) <= 350


MEASURE = """
import sys, time
began = time.perf_counter(); import torch; torch_took = time.perf_counter() - began
before = set(sys.modules)
began = time.perf_counter(); import msam; took = time.perf_counter() - began
more = {m.split(".")[0] for m in set(sys.modules) - before} - {"msam"} - set(sys.stdlib_module_names)
print(took / torch_took, " ".join(sorted(more)))
"""


def test_importing_msam_costs_little_more_than_torch_and_brings_nothing_else():
    runs = [
        subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]
    assert all(run[1:] == [] for run in runs)
    assert min(float(run[0]) for run in runs) < 0.2
