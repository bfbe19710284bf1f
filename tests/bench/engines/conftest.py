"""Engines on the real thing: SLURM's daemons on this machine, a Ray cluster of two machines."""

import importlib.util
import os

import pytest

from msam.bench.engines import load, slurm
from tests.fixtures import ray as ray_fixture
from tests.fixtures import slurm as slurm_fixture


@pytest.fixture(scope="session")
def slurm_commands():
    """The environment of a SLURM cluster of one node with four CPUs."""
    lacking = slurm_fixture.absent()
    _needed("SLURM", f"no {', '.join(lacking)}: apt-get install slurmctld slurmd slurm-client munge" if lacking else "")
    with slurm_fixture.cluster() as environment:
        yield environment


@pytest.fixture
def in_slurm(slurm_commands, monkeypatch):
    """SLURM's commands find the cluster, and are asked more often than a real one should be."""
    for name, value in slurm_commands.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "ASKS", (0.4, 0.8))
    monkeypatch.setattr(slurm, "LOOKS", (0.1, 0.3))


@pytest.fixture(scope="session")
def ray_machines():
    """A Ray cluster of two machines with one CPU each, and a connection to it."""
    _needed("RAY", "" if importlib.util.find_spec("ray") else "no Ray: pip install 'msam[ray]'")
    with ray_fixture.cluster(machines=2) as cluster:
        yield cluster


@pytest.fixture
def make(request, tmp_path):
    """A function from options to an engine: the test's parameter says of which kind."""
    if request.param == "local":
        return lambda **options: load("local")(**{"workers": 2} | options)
    if request.param == "ray":
        request.getfixturevalue("ray_machines")
        return lambda **options: load("ray")(**options)
    request.getfixturevalue("in_slurm")
    few = {"parallelism": 3, "tasks": 3, "minutes": 5, "logs": str(tmp_path / "slurm")}
    return lambda **options: load("slurm")(**few | options)


def _needed(name: str, lacks: str) -> None:
    if lacks and os.environ.get(f"MSAM_REQUIRE_{name}") == "1":
        pytest.fail(f"MSAM_REQUIRE_{name}=1 and there is {lacks}")
    if lacks:
        pytest.skip(f"there is {lacks}")
