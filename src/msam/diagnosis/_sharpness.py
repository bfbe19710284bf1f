"""How sharp the loss is within each encoder's parameters."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from msam.diagnosis._game import Array
from msam.diagnosis._views import View
from msam.sharpness._random import random_state, replayed
from msam.sharpness._tensors import displaced
from msam.train.probes import cheap_in_double
from msam.train.probes._base import Study, finite, norm
from msam.train.probes.curvature import largest_eigenvalues
from msam.types import Batch

SAMPLES = 512
"""Samples on which it is measured, at most about."""

NO_PARAMETERS = "it has no parameters"


class Sharp(NamedTuple):
    """How sharp the loss is within one encoder.

    Attributes:
        rises: by how much the loss of each row rises, `(N,)`; None where it is not finite.
        eigenvalue: the largest; None where it was not found.
        missing: why a number is missing, empty where none is.
    """

    rises: Array | None
    eigenvalue: float | None
    missing: str = ""


def sharpness(view: View, batches: Sequence[Batch], rho: float) -> dict[str, Sharp]:
    """Return for each modality with an encoder how sharp the joint loss is there; the model is left as it was.

    One step of ascent, `e = rho * g / ||g||` with `g` the gradient of the encoder's parameters alone, as
    `MSAM(scope="dominant")` climbs; and the largest eigenvalue of their block of the Hessian, by Lanczos's method.
    """
    network: nn.Module = view.model
    with replayed(random_state()):
        study = Study(network, batches, double=cheap_in_double(network))  # type: ignore[arg-type]
        twins = dict(zip(network.parameters(), study.parameters, strict=True))
        found = {}
        for name in view.encoded:
            block = study.within([twins[p] for p in view.encoder_parameters(name)])
            found[name] = _within(block, rho) if block.parameters else Sharp(None, None, NO_PARAMETERS)
    return found


def _within(block: Study, rho: float) -> Sharp:
    _, [gradient] = block.gradients([None])
    before, length = block.losses(), norm(gradient)
    if finite(length) is None or not bool(before.isfinite().all()):
        return Sharp(None, None, "the loss or its gradient is not finite")
    try:
        eigenvalue = largest_eigenvalues(block, 1)[0][0]
        missing = "" if eigenvalue is not None else "Lanczos's method found no eigenvalue"
    except NotImplementedError as error:  # torch says so of layers that cannot be differentiated twice
        eigenvalue, missing = None, f"no eigenvalue, {str(error).splitlines()[0].rstrip('.')}"
    if length == 0:
        return Sharp((before * 0).cpu().numpy(), eigenvalue, missing)
    with displaced({rho: (list(block.parameters), gradient)}, length):
        rises = block.losses() - before
    if not bool(rises.isfinite().all()):
        return Sharp(None, eigenvalue, f"the loss at a distance of {rho:g} is not finite")
    return Sharp(rises.double().cpu().numpy(), eigenvalue, missing)
