"""From a configuration to the parts it names."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from msam import checks, data, methods, models, sharpness, tasks
from msam.data import Card, Dataset
from msam.methods import Method
from msam.models import MultimodalModel
from msam.sharpness import Sharpness
from msam.tasks._targets import warn_unless_standardised
from msam.train.config import RunConfig
from msam.train.optimizers import OPTIMIZERS, SCHEDULES

LOOKED_AT = 128
"""Training samples of a regression whose numbers are looked at before a run."""


def dataset(config: RunConfig) -> Dataset:
    """Return the dataset."""
    return data.load(config.data["name"])(**_options(config.data))


def task(dataset: Dataset) -> tasks.Task:
    """Return what is asked of a dataset; warn where it is numbers that are far from standardised."""
    found = tasks.load(dataset.task)
    if found.name == "regression":
        warn_unless_standardised(dataset.train[range(min(len(dataset.train), LOOKED_AT))].target)
    return found


def method(config: RunConfig) -> Method:
    """Return the method."""
    return methods.load(config.method["name"])(**_options(config.method))


def model(config: RunConfig, dataset: Dataset | Card) -> MultimodalModel:
    """Return the model as its method builds it, with fresh weights.

    Raises:
        ValueError: if the configuration chooses an encoder for what is no modality of the dataset, or one that its shape
            does not fit; if fusion or method are not defined for such a model.
    """
    fusion, classes = config.fusion, dataset.num_classes
    for name in config.encoders:
        checks.one_of("modality", name, dataset.shapes)
    encoders = {name: config.encoders.get(name, kind) for name, kind in dataset.encoders.items()}
    plain = models.build(encoders, dataset.shapes, classes, fusion["name"], **_options(fusion))
    return method(config).build(plain, classes)


def optimizer(config: RunConfig, model: MultimodalModel) -> torch.optim.Optimizer:
    """Return a fresh optimizer of all parameters."""
    return OPTIMIZERS[config.optimizer["name"]](model.parameter_groups(), **_options(config.optimizer))


def schedule(config: RunConfig) -> Callable[[int], float]:
    """Return the factor on the learning rates, from the number of epochs done."""
    found: Callable[[int], float] = SCHEDULES[config.schedule["name"]](
        epochs=config.epochs, **_options(config.schedule)
    )
    return found


def rule(config: RunConfig, optimizer: torch.optim.Optimizer, model: nn.Module) -> Sharpness | None:
    """Return the sharpness rule beside an optimizer, or None."""
    if config.sharpness is None:
        return None
    found: Any = sharpness.load(config.sharpness["name"])
    made: Sharpness = found(optimizer, model=model, **_options(config.sharpness))
    return made


def whole_step(rule: Sharpness, method: Method) -> bool:
    """Tell whether the rule is to do both passes of a step itself, from the method's losses of every sample.

    Raises:
        ValueError: if it has to, and the method makes or changes gradients in its own way.
    """
    plain = type(method).gradients is Method.gradients and type(method).modulate is Method.modulate
    if rule.needs_samples and not plain:
        raise ValueError(
            f"{type(rule).__name__} with these options splits the loss of every sample, and {type(method).__name__} makes "
            "or changes gradients in its own way: they do not go together. Choose a method that adds losses and no more "
            "(joint, uniform, gblending, umt), or a sharpness rule that climbs with the whole loss."
        )
    return plain and rule.prefers_backward


def trains(module: nn.Module) -> bool:
    """Tell whether any parameter of a module trains; one without parameters does."""
    flags = [p.requires_grad for p in module.parameters()]
    return any(flags) or not flags


def _options(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "name"}
