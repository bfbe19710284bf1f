from pathlib import Path

import pytest

from msam.report import Report, report
from tests.report._records import study


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of records: two datasets, several rows, four seeds, an unfinished run, a diverged one."""
    return study(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="session")
def written(records: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """The report on them, and the folder it lies in."""
    out = tmp_path_factory.mktemp("report")
    return report([records], out), out
