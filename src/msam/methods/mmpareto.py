"""MMPareto: the gradients of the fused loss and of a modality's own, joined without conflict (Wei, Hu, ICML 2024)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Passes, Run
from msam.methods._gradients import flat, parameters, taken
from msam.methods._heads import head_losses
from msam.models import MultimodalModel
from msam.types import Batch, Output

ROUNDING = 100.0  # in units of the type's epsilon: what is left of terms that cancel is no direction


def min_norm_weights(g_multimodal: Tensor, g_unimodal: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(w_mm, w_u)`, which sum to 1: what each of two gradients `(n,)` counts.

    Where they do not conflict (cosine > 0), half each. Else the point of the segment between them that is nearest to 0,
    `w_mm = (|g_u|^2 - <g_mm, g_u>) / |g_mm - g_u|^2`. A gradient that is zero conflicts with none: half each.

    >>> min_norm_weights(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0]))
    (tensor(0.6000), tensor(0.4000))
    >>> min_norm_weights(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 9.0]))
    (tensor(0.5000), tensor(0.5000))
    """
    inner = g_multimodal @ g_unimodal
    squares = g_multimodal.square().sum(), g_unimodal.square().sum()
    if inner > 0 or 0 in squares:
        return torch.full_like(inner, 0.5), torch.full_like(inner, 0.5)
    w_mm = (squares[1] - inner) / (squares[0] + squares[1] - 2 * inner)
    return w_mm, 1 - w_mm


def lengthening(w_mm: Tensor, g_multimodal: Tensor, g_unimodal: Tensor) -> Tensor:
    """Return `lambda = max(1, |G| / |n|)`, with `G = g_mm + g_u` and `n = 2 w_mm g_mm + 2 (1 - w_mm) g_u`.

    1 where `n` is zero, or what rounding leaves of two terms that cancel: it has no length to restore.

    >>> lengthening(torch.tensor(0.6), torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0]))
    tensor(1.1180)
    """
    terms = 2 * w_mm * g_multimodal, 2 * (1 - w_mm) * g_unimodal
    length = (terms[0] + terms[1]).norm()
    if length <= ROUNDING * torch.finfo(length.dtype).eps * (terms[0].norm() + terms[1].norm()):
        return torch.ones_like(length)
    return ((g_multimodal + g_unimodal).norm() / length).clamp_min(1)


@dataclass(frozen=True)
class MMPareto(Method):
    """Every encoder's gradient is made of two, that of the fused loss and that of its modality's own, without conflict.

    Every modality has a linear head on its feature, with a loss `L_m` of its own beside the fused `L_mm`. With `g_mm` and
    `g_u` the gradients of `L_mm` and `L_m` in the encoder of m:

        w_mm, w_u = 1/2, 1/2                        where cos(g_mm, g_u) > 0
                    argmin |w_mm g_mm + w_u g_u|    elsewhere, w_mm + w_u = 1
        n         = 2 w_mm g_mm + 2 w_u g_u
        lambda    = max(1, |g_mm + g_u| / |n|)
        .grad     = gamma lambda n

    Fusion and heads take the plain gradient of `L_mm + sum_m L_m`. Without conflict `n = g_mm + g_u` and `lambda = 1`:
    `gamma` times what uniform training gives the encoder, so that gamma is in the main a larger learning rate for encoders.

    Paper and official code: the paper states `lambda` for the encoder's whole gradient ("paper", the default); the code
    takes one for every tensor, which turns the direction ("code"). Where the gradients are exactly orthogonal the paper
    counts half each, the code and we the nearest point. The code needs `M + 1` backward passes; as `L_m` reaches encoder
    m alone, two suffice: one of `L_mm`, one of `sum_m L_m`. Where one gradient is zero the code's solver counts 0.999 of
    the zero and `lambda` (500) repairs the length; half each gives the same, `gamma` times the other gradient. Where they
    are exactly opposite no direction serves both, what is left of `n` is rounding, and the code's `lambda` is unbounded;
    here it is 1, and the encoder rests in that step.

    Any number of modalities: one pair of gradients per encoder. Any fusion: it keeps its plain gradient.
    The weights and `lambda` of the first pass of a sharpness rule are kept in the second.

    Arguments:
        gamma: factor on the gradients of encoders, > 0.
        variant: "paper", one `lambda` per encoder; "code", one per tensor.

    >>> MMPareto(gamma=0.0)
    Traceback (most recent call last):
    ValueError: `gamma` must be > 0, received 0.0.
    """

    about: ClassVar[About] = About(
        paper="Wei, Hu, ICML 2024",
        family="optimization",
        changes="rewrites encoders' gradients from those of the fused and the own loss",
        heads="one linear per modality",
        pairs="rules reuse the weights of the first pass; gamma lengthens the encoders' part of a climb, and an adaptive "
        "optimizer all but cancels it",
    )

    gamma: Annotated[float, Range(gt=0), Search(1.0, 3.0)] = 1.5
    variant: Literal["paper", "code"] = "paper"

    def passes(self, modalities: int) -> Passes:
        """Return one forward and two backward passes, whatever the number of modalities."""
        return Passes(forward=1.0, backward=2.0)

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Add a linear head per modality."""
        model.add_heads(num_classes)
        return model

    def gradients(self, run: Run, batch: Batch) -> Output:
        """Go back twice, from the fused loss and from the sum of the own ones, and join what they leave in encoders."""
        output: Output = run.model(batch.inputs, batch.present)
        fused = self.loss(run, output, batch).mean()
        run.backward(fused if output.extra_loss is None else fused + output.extra_loss, retain_graph=True)
        encoders = {name: parameters(run.network, name, ("encoder",)) for name in run.modalities}
        multimodal = {name: taken(chosen) for name, chosen in encoders.items()}
        run.backward(head_losses(run, output, batch).mean(1).sum())
        weights = [self._join(run, name, multimodal[name], taken(chosen)) for name, chosen in encoders.items()]
        run.notes["coefficients"] = [round(1 - w_mm, 6) for w_mm in weights]
        return output

    def _join(
        self, run: Run, name: str, multimodal: dict[nn.Parameter, Tensor], unimodal: dict[nn.Parameter, Tensor]
    ) -> float:
        """Write the gradient of one encoder and return the weight of its multimodal part."""
        chosen = list(dict.fromkeys([*multimodal, *unimodal]))
        if not chosen:  # an encoder without parameters, features computed beforehand for instance
            return 0.5
        pairs = [tuple(g[p] if p in g else torch.zeros_like(p) for g in (multimodal, unimodal)) for p in chosen]
        whole = tuple(flat(gradients) for gradients in zip(*pairs, strict=True))
        w_mm = run.once(f"weight {name}", lambda: min_norm_weights(*whole)[0])
        lengths = run.once(
            f"lengths {name}",
            lambda: (
                [lengthening(w_mm, *whole)] * len(pairs)
                if self.variant == "paper"
                else [lengthening(w_mm, *pair) for pair in pairs]
            ),
        )
        for p, (g_mm, g_u), length in zip(chosen, pairs, lengths, strict=True):
            p.grad = self.gamma * length * (2 * w_mm * g_mm + 2 * (1 - w_mm) * g_u)
        return float(w_mm)
