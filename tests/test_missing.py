"""Where a package is missing, one sentence says which, what needs it, and how it is installed."""

import subprocess
import sys

import pytest

from msam._missing import remedy

HIDE = "import sys; sys.modules[{package!r}] = None; "


def said(package: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run code where a package cannot be imported."""
    line = HIDE.format(package=package) + code
    return subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=False)


def test_a_diagnosis_says_what_to_install() -> None:
    run = said("scipy", "import msam; msam.diagnose")
    assert run.stderr.strip().endswith(
        "ModuleNotFoundError: `msam.diagnose` needs the package scipy, which is not installed. Install it with "
        "`pip install 'msam[train]'`."
    )


@pytest.mark.parametrize(("package", "command"), [("cyclopts", "[]"), ("plotly", "['diagnose', 'nowhere']")])
def test_the_command_line_says_it_in_one_line(package: str, command: str) -> None:
    run = said(package, f"from msam.cli import main; main({command})")
    assert run.returncode == 1
    assert run.stderr.startswith(f"error: The command line needs the package {package}, which is not installed.")
    assert "pip install 'msam[demo]'" in run.stderr
    assert run.stderr.count("\n") == 1


def test_what_msam_never_asks_for_is_left_to_whoever_wanted_it() -> None:
    assert remedy(ModuleNotFoundError(name="my_lab.part"), "It", "train") == ""
    assert remedy(ModuleNotFoundError(name="msam.nothing"), "It", "train") == ""
    assert "lightning_fabric" in remedy(ModuleNotFoundError(name="lightning_fabric"), "It", "train")
