"""What Optuna says, so that tests see that it says nothing."""

import logging

import pytest


@pytest.fixture
def optuna_says():
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("optuna").addHandler(handler)
    yield said
    logging.getLogger("optuna").removeHandler(handler)
