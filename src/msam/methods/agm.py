"""AGM, adaptive gradient modulation (Li, Li, Hu, Lei, Li, Zhou, ICCV 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from msam import shapley
from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Passes, Run
from msam.methods._scores import compared, cross_entropy
from msam.methods._window import within
from msam.models import MultimodalModel
from msam.models.multimodal import where_present
from msam.types import Batch, Output


def ratios(losses: Tensor) -> Tensor:
    """Return `r_m = exp(mean_{j != m} (s_j - s_m))`, `(M,)`: above 1 where modality m has the lower loss.

    The second has the larger loss, by log 2:

    >>> ratios(torch.tensor([0.0, 0.69315]))
    tensor([2.0000, 0.5000])
    """
    return ((losses - losses[:, None]).sum(1) / (len(losses) - 1)).exp()


def coefficients(losses: Tensor, running_losses: Tensor, alpha: float, cap: float | None) -> Tensor:
    """Return `kappa_m = exp(alpha min(tau_m - r_m, cap))`, `r = ratios(losses)`, `tau = ratios(running_losses)`.

    Below 1 where m is further ahead of the others than it has been so far, above 1 where it is less so.

    Arguments:
        losses: `(M,)`, at least two, of this batch.
        running_losses: `(M,)`, their mean over all batches before; zeros at the first step, so that tau = 1.
        alpha: >= 0; at 0 every coefficient is 1.
        cap: of the exponent, before alpha; None for none.

    At the first step r = (2, 1/2) and tau = 1: `exp(-1)` and `exp(1/2)`.

    >>> coefficients(torch.tensor([0.0, 0.69315]), torch.zeros(2), alpha=1.0, cap=None)
    tensor([0.3679, 1.6487])
    """
    behind = ratios(running_losses) - ratios(losses)
    return (alpha * (behind if cap is None else behind.clamp_max(cap))).exp()


def split(logits: Tensor, responses: Tensor, scales: Tensor) -> Tensor:
    """Return the logits, whose gradient `g` goes on as `scale_m g` into the response of modality m.

    The value is that of `logits`, bit for bit: no scale ever meets it.

    Arguments:
        logits: `(N, C)`.
        responses: `(M, N, C)` with a graph; they sum to the logits.
        scales: `(M,)`.

    >>> responses = torch.zeros(2, 1, 1, requires_grad=True)
    >>> split(torch.zeros(1, 1), responses, torch.tensor([3.0, 0.5])).sum().backward()
    >>> responses.grad.flatten()
    tensor([3.0000, 0.5000])
    """
    through = responses.view_as(responses)
    through.register_hook(lambda grad: grad * scales.to(grad)[:, None, None])
    return logits.detach() + (through - through.detach()).sum(0)


@dataclass(frozen=True)
class AGM(Method):
    r"""Split the gradient at the logits by what each modality contributes to them, and scale every part by itself.

        Phi_m = Shapley values of v(S) = F(S), v(nothing) := 0, which sum to the logits z = F(all); for two modalities
        Phi_a = (z - F(0, v) + F(a, 0)) / 2         Phi_v = (z - F(a, 0) + F(0, v)) / 2
        s_m = mean_b -log max(softmax(Phi_m)[y], 1e-8)
        r_m = exp(mean_{j != m} (s_j - s_m))        tau_m = the same of the mean of s over all steps before
        kappa_m = exp(alpha min(tau_m - r_m, cap))
        dL / dPhi_m = kappa_m g,   g = dL / dz      so that, with F(S) seen as a function of the weights w,
        dL / dw = g (kappa_a + kappa_v) / 2 dz/dw + g (kappa_a - kappa_v) / 2 (dF(a, 0)/dw - dF(0, v)/dw)

    All parameters feel it, and F(S) carries gradient: what an encoder makes of an empty input is trained too. Values are
    never scaled: z, the loss and the record are those of joint training. With kappa = 1 gradients are too.

    F(S) is the model where the *inputs* of absent modalities are zeros (`absent="input"`, as in the official code), or
    their *features* are (`absent="feature"`; for a concatenation Phi_m is then `W_m h_m + b / M`). A sample that lacks a
    modality has a feature of zeros for it in every F(S).

    Paper and official code differ, `variant` chooses:

        paper     F(S) sees the features of the full pass; what stands for an absent modality is made in evaluation mode
                  (one sample of zeros, which is all it takes), as is the fusion of all F(S) but the full one; after the
                  window training is joint
        code      F(S) is in evaluation mode throughout, the encoders run a second time for it; after the window the last
                  kappa is applied for ever, as nothing sets it back

    The paper is the default: one set of features, no stale scales, half the cost. For both, BatchNorm statistics are
    updated once per step, by the full pass. The paper has no cap; the code has 10 for CREMA-D (the default: without one a
    single batch can overflow), 7 for UR-FUNNY, none elsewhere. Its alpha is 1.5 on CREMA-D, 2.5 on AV-MNIST, 4 to 6 on
    UR-FUNNY, its window by default epochs 0 to 20. Its conditional clipping of gradients is left out.

    Any fusion, two to twelve modalities; `2^M - 2` coalitions go through the fusion, in one call.

    Arguments:
        alpha: strength, >= 0; at 0 this is joint training.
        cap: largest `tau - r`, >= 0; None for none.
        absent: "input" or "feature".
        variant: "paper" or "code".
        first_epoch: first epoch that is modulated, >= 1; before, this is joint training and no loss enters the mean.
        last_epoch: last one, >= 1; after, this is joint training, but see `variant`. None for the end of the run.

    >>> AGM().passes(2).cost, AGM(variant="code").passes(2).cost
    (1.0, 2.0)
    """

    about: ClassVar[About] = About(
        paper="Li, Li, Hu, Lei, Li, Zhou, ICCV 2023",
        family="feed-forward",
        changes="splits the gradient at the logits, scales each modality's part",
        neutral=("joint", {"alpha": 0.0}),
        pairs="Both passes of a sharpness rule use one kappa, and a rule climbs along the modulated gradient; adaptive "
        "optimizers divide away what all kappas share and keep their difference.",
    )

    alpha: Annotated[float, Range(ge=0), Search(0.1, 10.0, log=True)] = 1.5
    cap: Annotated[float | None, Range(ge=0)] = 10.0
    absent: Literal["input", "feature"] = "input"
    variant: Literal["paper", "code"] = "paper"
    first_epoch: Annotated[int, Range(ge=1)] = 1
    last_epoch: Annotated[int | None, Range(ge=1)] = None

    def passes(self, modalities: int) -> Passes:
        """Return what one step inside the window costs; the one sample of zeros is not counted."""
        return Passes(forward=2, backward=2) if self.variant == "code" else Passes()

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Return the model as it is.

        Raises:
            ValueError: for one modality, or more than twelve.
        """
        shapley.coalitions(len(model.modalities))
        return compared("AGM", model)

    def gradients(self, run: Run, batch: Batch) -> Output:
        """Make the gradients; the second pass of a rule reuses the scales of the first."""
        output: Output = run.model(batch.inputs, batch.present)
        logits = self._modulated(run, output, batch)
        loss = self.loss(run, output._replace(logits=logits), batch).mean()
        run.backward(loss if output.extra_loss is None else loss + output.extra_loss)
        return output

    def _modulated(self, run: Run, output: Output, batch: Batch) -> Tensor:
        inside = within(run, self.first_epoch, self.last_epoch)
        stale = self.variant == "code" and not inside and "scales" in run.state
        if not (inside or stale):
            return output.logits
        responses = self._responses(run.network, output, batch)
        now = run.once("scales", lambda: self._scales(run, responses.detach(), batch)) if inside else None
        scales = run.state["scales"] if now is None else now
        run.notes["coefficients"] = [round(k, 6) for k in scales.tolist()]
        return split(output.logits, responses, scales)

    def _scales(self, run: Run, responses: Tensor, batch: Batch) -> Tensor:
        """Return the scales of this step, and remember its losses."""
        losses = cross_entropy(list(responses), batch.target, batch.present)
        losses = losses.cpu().double()  # a checkpoint's tensors come back on the CPU
        seen, mean = run.state.get("seen", 0), run.state.get("losses", torch.zeros_like(losses))
        scales = coefficients(losses, mean, self.alpha, self.cap)
        run.state.update(seen=seen + 1, losses=mean + (losses - mean) / (seen + 1), scales=scales)
        return scales

    def _responses(self, network: MultimodalModel, output: Output, batch: Batch) -> Tensor:
        """Return `Phi`, `(M, N, C)`, with a graph; nothing is drawn, no statistics change."""
        padded = shapley.coalitions(len(network.modalities))[:-1]
        with shapley.evaluating(network):
            there = output.features if self.variant == "paper" else network.encode(batch.inputs, present=batch.present)
            away = self._away(network, batch, there)
            rows = {
                name: torch.cat([there[name] if m in members else away[name] for members in padded])
                for m, name in enumerate(network.modalities)
            }
            logits = network.fuse(rows).reshape(len(padded), *output.logits.shape)
        return shapley.shapley_values(torch.cat([logits, output.logits[None]]))

    def _away(self, network: MultimodalModel, batch: Batch, there: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the features that stand for absent modalities."""
        if self.absent == "feature":
            return {name: torch.zeros_like(feature) for name, feature in there.items()}
        made = network.encode({name: torch.zeros_like(batch.inputs[name][:1]) for name in network.modalities})
        samples = len(next(iter(batch.inputs.values())))
        # one sample of zeros, for all: a feature, or one for each of its segments
        expanded = {name: feature.repeat(samples, *[1] * (feature.dim() - 1)) for name, feature in made.items()}
        if batch.present is None:
            return expanded
        return where_present(expanded, batch.present, network.modalities, samples)
