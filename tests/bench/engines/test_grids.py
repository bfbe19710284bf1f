"""A grid on the engines of clusters: the records that it has in this process."""

import pytest

from msam import bench, record
from msam.record import without_volatile
from tests.bench.engines.test_laws import every_engine
from tests.bench.grids import tiny
from tests.bench.inline import Inline

CELLS = tiny(seeds=1).cells()[1::2]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    bench.run(CELLS, folder, engine=Inline(), quiet=True)
    return said(folder)


def said(folder):
    """What the records say, time, host and state of the repository aside."""
    found = {one.path.name: one for one in record.find(folder)}
    return {
        name: without_volatile([{**one.header, "commit": None}, *one.epochs, one.end]) for name, one in found.items()
    }


@every_engine
def test_records_do_not_depend_on_the_engine(make, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bench.run(CELLS, "records", engine=make(), quiet=True)
    assert said(tmp_path / "records") == here
    assert len(here) == 2
