"""Probes: what is measured of the weights beside the measures of the protocol, for a line of their own in the record.

A probe changes nothing: it works on a copy of the model, draws no random numbers of the run, and writes no gradient.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BeforeValidator, PlainSerializer
from pydantic_core import PydanticCustomError
from torch import nn

from msam import checks
from msam.data import Split
from msam.data._loaders import batches, in_chunks
from msam.data._splits import order
from msam.models import MultimodalModel
from msam.sharpness._random import random_state, replayed
from msam.train.probes import curvature, gradients, landscape
from msam.train.probes._base import Study
from msam.types import Batch

if TYPE_CHECKING:
    from msam.train.config import RunConfig

__all__ = ["PROBES", "Probe", "Study", "measured"]

Name = Literal["gradients", "curvature", "landscape"]
When = Literal["epoch", "end"]

SAMPLES = 512
"""Training samples that a probe looks at, at most; the same ones in every run on the same data."""

AT_ONCE, BYTES = 128, 2**23
"""Samples in one pass, at most, and bytes of their inputs: a second backward pass keeps several times what one does."""

SMALL = 1_000_000
"""Parameters of a small model, at most: more samples go through it at once than through a large one, of which half a batch,
and a probe that wants double precision has it, on a CPU or CUDA device and without convolutions."""


class Probe(NamedTuple):
    """What a probe measures, and when a run asks for it.

    Attributes:
        measure: from a study to the fields of the line.
        when: "epoch": before the first epoch and after every one; "end": of the last weights.
        double: whether it wants double precision.
    """

    measure: Callable[[Study], dict[str, Any]]
    when: When
    double: bool = False


PROBES: Mapping[str, Probe] = {
    "gradients": Probe(gradients.measure, "epoch"),
    "curvature": Probe(curvature.measure, "end", double=True),
    "landscape": Probe(landscape.measure, "end"),
}
"""Probes by name."""


def _words(value: Any) -> Any:
    """Read `a,b`, as on the command line; each probe once, in one order, so that equal choices are equal."""
    words = [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise PydanticCustomError("probes", "names of probes, as in gradients,landscape")
    known = list(get_args(Name))
    return sorted(set(words), key=lambda word: (known.index(word) if word in known else len(known), word))


Chosen = Annotated[tuple[Name, ...], BeforeValidator(_words), PlainSerializer(list, return_type=list)]
"""The probes of a configuration; a list in records and checkpoints."""


def lines(
    when: When, config: "RunConfig", network: MultimodalModel, train: Split, prepare: Callable[[Batch], Batch]
) -> Iterator[dict[str, Any]]:
    """Yield the fields of a line for each of a run's probes that is due."""
    rho = (config.sharpness or {}).get("rho")
    for name in config.probes:
        if PROBES[name].when == when:
            yield measured(
                name, network, train, prepare=prepare, batch_size=config.batch_size, seed=config.seed, rho=rho
            )


def measured(
    name: str,
    network: MultimodalModel,
    split: Split,
    *,
    prepare: Callable[[Batch], Batch] = lambda batch: batch,
    batch_size: int = 64,
    seed: int = 0,
    rho: float | None = None,
) -> dict[str, Any]:
    """Return what one probe finds, as the fields of a `probe` line of a record; model and random state stay as they are.

    It looks at the first 512 samples of one fixed order, which depends on nothing but how many there are, in evaluation
    mode: nothing is dropped out, BatchNorm takes its running statistics. Numbers that are not finite are None.

    Arguments:
        name: a key of `PROBES`.
        network: the model, unwrapped.
        split: training samples; the test set is not for this.
        prepare: makes a batch ready for the model (brings it to its device, say).
        batch_size: of training; no more than half of it goes through a large model at once.
        seed: of what a probe draws at random: the landscape's directions.
        rho: a radius at which the curvature probe climbs too, beside 0.05.

    Raises:
        ValueError: if there is no such probe, with the nearest known name, or the split has no samples.

    >>> from msam import data, models
    >>> world = data.load("dial")(train_size=64, valid_size=8, test_size=8, bayes_samples=10)
    >>> model = models.build(world.encoders, world.shapes, world.num_classes, "shared")
    >>> line = measured("gradients", model, world.train)
    >>> line["samples"], line["logits"], line["shared"]["of"]
    (64, 'split', 'fusion')
    """
    probe = PROBES[checks.one_of("probe", name, PROBES)]
    if not len(split):
        raise ValueError("The split has no samples to measure.")
    began = time.perf_counter()
    chosen = sorted(order(len(split), 0, "probe")[:SAMPLES])
    double = probe.double and cheap_in_double(network)
    at_once = _at_once(network, split[chosen[:1]], batch_size)
    read = [prepare(batch) for batch in batches(split, in_chunks(chosen, at_once))]
    with replayed(random_state()):
        study = Study(network, read, double=double, seed=seed, rho=rho)
        found = probe.measure(study)
    about = {"probe": name, "samples": len(chosen), "dtype": str(study.dtype).removeprefix("torch.")}
    return {**about, **found, "seconds": time.perf_counter() - began}


def _at_once(network: nn.Module, sample: Batch, batch_size: int) -> int:
    size = sum(value.nbytes for value in sample.inputs.values())
    most = AT_ONCE if _small(network) else batch_size // 2
    return max(1, min(most, BYTES // max(size, 1)))


def cheap_in_double(network: nn.Module) -> bool:
    """Tell whether double precision costs little: convolutions take three times as long in it."""
    convolves = any(isinstance(module, nn.modules.conv._ConvNd) for module in network.modules())
    return _small(network) and not convolves and next(network.parameters()).device.type != "mps"


def _small(network: nn.Module) -> bool:
    return sum(p.numel() for p in network.parameters()) <= SMALL
