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


class Sharp(NamedTuple):
    """Within one encoder: by how much each row's loss rises, `(N,)`, None where it does not say; the largest eigenvalue."""

    rises: Array | None
    eigenvalue: float | None


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
            found[name] = _within(block, rho) if block.parameters else Sharp(None, None)
    return found


def _within(block: Study, rho: float) -> Sharp:
    _, [gradient] = block.gradients([None])
    before, length = block.losses(), norm(gradient)
    if finite(length) is None or not bool(before.isfinite().all()):
        return Sharp(None, None)
    eigenvalue = largest_eigenvalues(block, 1)[0][0]
    if length == 0:
        return Sharp((before * 0).cpu().numpy(), eigenvalue)
    with displaced({rho: (list(block.parameters), gradient)}, length):
        rises = block.losses() - before
    return Sharp(rises.double().cpu().numpy() if bool(rises.isfinite().all()) else None, eigenvalue)
