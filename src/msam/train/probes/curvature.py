"""Curvature: the largest eigenvalues of the loss's Hessian, and how far the loss rises nearby."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from msam.sharpness._tensors import displaced
from msam.train.probes._base import Name, Study, finite, norm

if TYPE_CHECKING:
    import numpy as np

LARGEST = 3
"""Eigenvalues that are found."""

RADIUS = 0.05
"""Radius at which every model is measured, SAM's default; beside it the radius of the run's own rule."""

DENSE = 32
"""Parameters up to which the Hessian is made whole."""

TOLERANCE, RESTARTS = 1e-4, 50
"""Residual of an eigenvalue, relative to it, whose square over the gap to the next one is about its error; restarts of
Lanczos's method until it is given up."""


def measure(study: Study) -> dict[str, Any]:
    """Return eigenvalues of the Hessian of the joint loss, and the sharpness that SAM bounds.

    Sharpness is `max L(theta + e) - L(theta)` over `||e|| <= rho`, by the one step of ascent that SAM takes,
    `e = rho * g / ||g||`, `g = grad L(theta)` over all parameters (Foret et al. 2021); for a modality with its own loss
    in place of `L`. It is below the maximum, and may be negative where the loss is rough.

    Neither is invariant: two models that compute the same function can have any eigenvalues, since scaling one layer up
    and the next one down changes them, as does weight decay or BatchNorm's scale (Dinh et al. 2017). Compare models of one
    architecture that are trained alike, and say what was held fixed.

    Returns:
        `loss`; `eigenvalues`, the three largest (in the algebraic sense), descending, None where the loss is not finite
        or Lanczos's method did not converge; `products`, Hessian-vector products that it took; `logits`, of which a
        modality's own loss is made; `sharpness`: for each radius `rho`, `joint` and `modalities`, name -> its own.
    """
    losses, gradients = study.gradients([None, *study.modalities])
    radii = list(dict.fromkeys([RADIUS, study.rho or RADIUS]))
    names: list[Name] = [None, *study.modalities]
    rises = [[_rise(study, *one, rho) for one in zip(names, losses, gradients, strict=True)] for rho in radii]
    eigenvalues, products = largest_eigenvalues(study)
    return {
        "loss": finite(losses[0]),
        "eigenvalues": eigenvalues,
        "products": products,
        "logits": study.logits,
        "sharpness": [
            {"rho": rho, "joint": joint, "modalities": dict(zip(study.modalities, own, strict=True))}
            for rho, (joint, *own) in zip(radii, rises, strict=True)
        ],
    }


def _rise(study: Study, name: Name, loss: float, gradient: list[Tensor], rho: float) -> float | None:
    length = norm(gradient)
    if finite(length) is None or finite(loss) is None:
        return None
    if length == 0:
        return 0.0
    with displaced({rho: (study.parameters, gradient)}, length):
        return finite(study.loss(name) - loss)


def largest_eigenvalues(study: Study, k: int = LARGEST) -> tuple[list[float | None], int]:
    """Return the `k` largest eigenvalues of the Hessian of the joint loss, descending, and how many products it took.

    By Lanczos's method (ARPACK) on products that are a second backward pass; no Hessian is made.
    """
    sizes = [p.numel() for p in study.parameters]
    like = study.parameters[0]
    taken = 0

    def product(vector: "np.ndarray") -> "np.ndarray":
        nonlocal taken
        taken += 1
        flat = torch.as_tensor(vector.reshape(-1)).to(like)
        along = [v.view_as(p) for v, p in zip(flat.split(sizes), study.parameters, strict=True)]
        made = torch.cat([v.reshape(-1) for v in study.product(along)]).double().cpu()
        if not made.isfinite().all():
            raise FloatingPointError
        return made.numpy()

    try:
        found = _dense(product, sum(sizes)) if sum(sizes) <= DENSE else _lanczos(product, sum(sizes), k)
    except FloatingPointError:
        found = []
    largest = sorted(map(float, found), reverse=True)[:k]
    return [*largest, *[None] * (min(k, sum(sizes)) - len(largest))], taken


def _dense(product: Callable[["np.ndarray"], "np.ndarray"], size: int) -> Sequence[float]:
    import numpy as np

    whole = np.stack([product(row) for row in np.eye(size)])
    return list(np.linalg.eigvalsh((whole + whole.T) / 2))


def _lanczos(product: Callable[["np.ndarray"], "np.ndarray"], size: int, k: int) -> Sequence[float]:
    """Return the k largest eigenvalues, or nothing if they are not found: any that are might be others."""
    import numpy as np
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    start = np.random.default_rng(0)
    more: dict[str, Any] = {"rng": start} if "rng" in signature(eigsh).parameters else {}
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    first = start.standard_normal(size)
    if not product(first).any():  # of a random vector: the Hessian is zero, and ARPACK would find no second vector
        return [0.0] * k
    try:
        options = {"which": "LA", "v0": first, "tol": TOLERANCE, "maxiter": RESTARTS, "return_eigenvectors": False}
        return list(eigsh(operator, k, **options, **more))
    except ArpackError:
        return []
