"""OGM-GE, on-the-fly gradient modulation with generalization enhancement (Peng, Wei, Deng, Wang, Hu, CVPR 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Run
from msam.methods._gradients import parameters, scale
from msam.methods._scores import compared, modality_logits, target_probability
from msam.methods._window import within
from msam.models import MultimodalModel
from msam.types import Batch, Output


def coefficients(scores: Tensor, alpha: float) -> Tensor:
    """Return `k_m = 1 - tanh(alpha rho_m)` where `rho_m > 1`, else 1, with `rho_m = P_m / mean_{j != m} P_j`.

    A tie of all damps the first modality, as the official code does: with two, exactly one is damped at every step. k
    jumps: at `rho = 1` from 1 to `1 - tanh(alpha)`.

    Arguments:
        scores: `(M,)`, at least two, the probabilities `P_m` in [0, 1] of the target.
        alpha: >= 0; at 0 every coefficient is 1.

    The first is twice as good, `1 - tanh(0.5 * 2)`:

    >>> coefficients(torch.tensor([0.5, 0.25]), alpha=0.5)
    tensor([0.2384, 1.0000])
    >>> coefficients(torch.tensor([0.25, 0.25]), alpha=0.5)
    tensor([0.5379, 1.0000])
    """
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    others = scores.expand_as(itself).masked_fill(itself, 0.0).sum(1) / (len(scores) - 1)
    ratio = scores / others.clamp_min(torch.finfo(scores.dtype).tiny)
    leads = (scores[:, None] - scores).sum(1) > 0  # rho > 1, without rounding at a tie
    leads[0] |= ~leads.any()
    return torch.where(leads, 1 - torch.tanh(alpha * ratio), 1.0)


@dataclass(frozen=True)
class OGMGE(Method):
    r"""Damp the gradient of the encoder of the modality that does better on the batch, and add noise to both.

        P_m = mean_b softmax(o_m)[y]        o_m = W_m h_m + b_m (sum), W_m h_m + b / 2 (concatenation)
        rho_m = P_m / P_other               k_m = 1 - tanh(alpha rho_m) if rho_m > 1, else 1
        g <- k_m g + n                      n ~ N(0, (std(g) + 1e-8)^2), for every tensor g of encoder m

    GE is the noise n. `std(g)` is one number, the unbiased standard deviation of the entries of the gradient as it was
    before k (0 for a tensor of one entry); the dominated modality gets its noise too. The fusion is never touched.

    Paper and official code differ, `variant` chooses:

        paper     every parameter of an encoder is modulated
        code      convolution weights alone (tensors of four dimensions); BatchNorm and biases are not

    The paper is the default: it is defined for encoders without convolutions. For both, as in the code: the noise has one
    standard deviation per tensor (the paper writes the covariance of stochastic gradients), and a tie, where the paper's
    formula damps none, damps the first modality. The code modulates epochs 0 to 50 of 100, which is `last_epoch=51`, with
    alpha 0.8 on CREMA-D and 0.1 on VGGSound.

    The paper has two modalities and a fusion whose logits split. `extend` admits more, with
    `rho_m = P_m / mean_{j != m} P_j` (every one above the mean of the others is damped), and early fusions, with Shapley
    logits (absent features set to zero) as `o_m`; where the paper is defined it changes nothing.

    Arguments:
        alpha: strength of the damping, >= 0.
        noise: whether to add the noise (GE); without, this is OGM.
        variant: "paper" or "code".
        extend: admit more than two modalities and early fusion, an extension of ours.
        first_epoch: first epoch that is modulated, >= 1; before, this is joint training.
        last_epoch: last one, >= 1; after, this is joint training. None for the end of the run.

    >>> OGMGE(alpha=-1.0)
    Traceback (most recent call last):
    ValueError: `alpha` must be >= 0, received -1.0.
    """

    stackable: ClassVar[bool] = True
    about: ClassVar[About] = About(
        paper="Peng, Wei, Deng, Wang, Hu, CVPR 2022",
        family="optimization",
        changes="damps the dominant encoder's gradient, adds noise",
        early=False,
        most=2,
        extension={"extend": True},
        still={"noise": False},
        neutral=("joint", {"alpha": 0.0, "noise": False}),
        pairs="A rule climbs along the modulated gradient, and its second pass reuses coefficients and noise; adaptive "
        "optimizers divide a steady coefficient away and keep its jumps and the noise.",
    )

    alpha: Annotated[float, Range(ge=0), Search(0.05, 2.0, log=True)] = 0.8
    noise: bool = True
    variant: Literal["paper", "code"] = "paper"
    extend: bool = False
    first_epoch: Annotated[int, Range(ge=1)] = 1
    last_epoch: Annotated[int | None, Range(ge=1)] = None

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Return the model as it is.

        Raises:
            ValueError: for one modality, for more than two or an early fusion without `extend`, and for an encoder without
                parameters, or without convolutions with `variant="code"`.
        """
        count, fusion = len(compared("OGM-GE", model).modalities), model.fusion
        if not self.extend and (count > 2 or not fusion.splits):
            raise ValueError(
                f"OGM-GE is defined for two modalities and a late fusion (late or concat), found {count} modalities and "
                f"{type(fusion).__name__}. Set `method.extend true` (an extension of ours) to admit more modalities, and "
                "early fusion."
            )
        for name in model.modalities:
            if not parameters(model, name, ("encoder",)):
                raise ValueError(
                    f"OGM-GE modulates encoders, and that of {name!r} has no parameters: nothing would happen to it. Use "
                    "a method that works on the losses, uniform or gblending for instance."
                )
            if not self._modulated(model, name):
                raise ValueError(
                    f"OGM-GE with `method.variant code` modulates convolution weights alone, and the encoder of {name!r} "
                    "has none: nothing would happen to it. Use `method.variant paper`, which modulates all parameters."
                )
        return model

    def modulate(self, run: Run, output: Output, batch: Batch) -> None:
        """Damp and add noise; the second pass of a rule reuses the coefficients and the noise of the first."""
        if not within(run, self.first_epoch, self.last_epoch):
            return
        chosen = {name: self._modulated(run.network, name) for name in run.modalities}
        factors = run.once("factors", lambda: self._factors(run, output, batch))
        run.notes["coefficients"] = [round(k, 6) for k in factors]
        # of the gradients before they are damped, and of the first pass alone: the second adds the very same noise
        sizes = run.once("sizes", lambda: _deviations(chosen)) if self.noise else {}
        for found, factor in zip(chosen.values(), factors, strict=True):
            scale(found, factor)
        if self.noise:
            _add_noise(sizes, run.once("seed", lambda: int(torch.randint(2**62, (), generator=run.generator))))

    def _modulated(self, network: MultimodalModel, name: str) -> list[nn.Parameter]:
        found = parameters(network, name, ("encoder",))
        return found if self.variant == "paper" else [p for p in found if p.dim() == 4]

    def _factors(self, run: Run, output: Output, batch: Batch) -> list[float]:
        logits = modality_logits(run.network, output, "fusion" if run.network.fusion.splits else "shapley")
        scores = target_probability(logits, batch.target, batch.present)
        found: list[float] = coefficients(scores, self.alpha).tolist()
        return found


def _deviations(chosen: Mapping[str, list[nn.Parameter]]) -> dict[nn.Parameter, Tensor]:
    grads = {p: p.grad for found in chosen.values() for p in found if p.grad is not None}
    return {p: (g.std() if g.numel() > 1 else g.new_zeros(())) + 1e-8 for p, g in grads.items()}


@torch.no_grad()
def _add_noise(sizes: Mapping[nn.Parameter, Tensor], seed: int) -> None:
    """Add noise of the given sizes; the same seed gives the same noise."""
    generators: dict[torch.device, torch.Generator] = {}
    for p, size in sizes.items():
        generator = generators.setdefault(p.device, torch.Generator(p.device).manual_seed(seed))
        noise = size * torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)
        if p.grad is not None:
            p.grad.add_(noise)
