import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msam.report import Report, report
from tests.report._records import study

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
]


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of records: two datasets, several rows, four seeds, an unfinished run, a diverged one."""
    return study(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="session")
def written(records: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """The report on them, and the folder it lies in."""
    out = tmp_path_factory.mktemp("report")
    return report([records], out), out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        reason = f"needs Debian's chromium at {CHROMIUM} (apt install chromium)"
        pytest.fail(reason) if os.environ.get("MSAM_REQUIRE_CHROMIUM") == "1" else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()
