"""One model and its diagnosis, which many tests look at."""

from typing import NamedTuple

import pytest

import msam
from msam.data import Dataset
from msam.diagnosis import Diagnosis
from msam.models import MultimodalModel
from tests.diagnosis.worlds import loader, trained, world


class Case(NamedTuple):
    world: Dataset
    model: MultimodalModel
    found: Diagnosis


@pytest.fixture(scope="session")
def case() -> Case:
    """Three modalities, the second strong, the third all but useless."""
    made = world(7, (3.0, 4.0, 0.5), valid_size=300)
    model = trained(made)
    train = loader(made.train, 64)
    found = msam.diagnose(
        model, loader(made.valid, 100), train=train, unimodal=2, resamples=300, classes="abcdef", progress=False
    )
    return Case(made, model, found)
