"""PMR: prototypical modal rebalance (Fan, Xu, Wang, Wang, Guo, CVPR 2023)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from msam import shapley
from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Passes, Run
from msam.methods._scores import compared
from msam.methods._window import within
from msam.models import MultimodalModel
from msam.models.fusion import pooled
from msam.models.multimodal import of_rows
from msam.tasks import per_sample_loss
from msam.types import Batch, Output

SMALLEST = 1e-12


def coefficients(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(beta, gamma)`, each `(M,)` in [0, 1]: how far a modality is behind the best, and ahead of the slowest.

    `beta_m = clip(S_max / S_m - 1, 0, 1)`, `gamma_m = clip(S_m / S_min - 1, 0, 1)`. For two modalities these are the
    paper's `clip(1 / rho - 1, 0, 1)` and `clip(rho - 1, 0, 1)`, `rho = S_0 / S_1`: beta of the slower one, gamma of the
    faster one, else 0.

    Arguments:
        scores: `(M,)`, mean probabilities of the true class.

    >>> coefficients(torch.tensor([0.2, 0.3]))
    (tensor([0.5000, 0.0000]), tensor([0.0000, 0.5000]))
    """
    best, worst, none = scores.max(), scores.min(), torch.zeros_like(scores)
    beta = torch.where(scores == best, none, (best / scores - 1).clamp(0, 1))
    gamma = torch.where(scores == worst, none, (scores / worst - 1).clamp(0, 1))
    return beta, gamma


def log_posterior(features: Tensor, prototypes: Tensor) -> Tensor:
    """Return `log softmax_k(-d(h_b, c_k))`, `(N, K)`, `d` the Euclidean distance, from `(N, d)` and `(K, d)`.

    >>> log_posterior(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 5.0]])).exp()
    tensor([[0.5000, 0.5000]])
    """
    squares = (features[:, None] - prototypes).square().sum(-1)
    return (squares + SMALLEST).sqrt().neg().log_softmax(-1)


def moved(old: Tensor, known: Tensor, sums: Tensor, counts: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    """Return prototypes `(C, d)` moved to new means, and which classes `(C,)` have one.

    A class that was never seen begins at its mean; one of which there is no sample this time stays.

    >>> old, known = torch.tensor([[0.0], [4.0], [0.0]]), torch.tensor([True, True, False])
    >>> moved(old, known, sums=torch.tensor([[6.0], [0.0], [9.0]]), counts=torch.tensor([2.0, 0.0, 3.0]), momentum=0.5)
    (tensor([[1.5000],
            [4.0000],
            [3.0000]]), tensor([True, True, True]))
    """
    means, seen = sums / counts[:, None].clamp_min(1), counts > 0
    kept = torch.where(known[:, None], momentum * old + (1 - momentum) * means, means)
    return torch.where(seen[:, None], kept, old), known | seen


@dataclass(frozen=True)
class PMR(Method):
    """The slower modality is pulled to the prototypes of its classes; early on, the faster one is held back.

    The prototype `c_k` of class k is the mean feature of a modality over its samples, and `p(k) = softmax_k(-|h - c_k|)`
    what a feature is taken for. With `S_m` the mean of `p_m(y)` over the batch, `beta` and `gamma` as in `coefficients`:

        L = CE(z, y) + alpha sum_m beta_m CE(p_m, y) - mu sum_m gamma_m H(p_m)

    the entropies H in the first `entropy_epochs` alone. The gradient of what is added reaches encoder m through its
    feature and nothing else. Prototypes are made at the first step of every epoch from a tenth of the training samples,
    another tenth each time, in evaluation mode, and move with momentum: `c = momentum c_old + (1 - momentum) c_new`.

    Paper and official code: the code adds `alpha CE(p_m, y)` of the slower modality whole, whatever the ratio, and no
    entropy ("code"); "paper" is the default. For two of its datasets the code makes prototypes from validation, one of them
    the test split: here they are always of training samples. A class of which the tenth has no sample is a division by zero
    there; here its prototype stays, and as long as it has none it is left out of the softmax, and its samples out of what
    is added. So are samples that lack the modality. The distance is `sqrt(|h - c|^2 + 1e-12)`: the root has no slope at 0.

    Defined for two modalities, early or late fusion; with `extend` for more (an extension of ours: each is compared with
    the best and the slowest, which for two is the paper).
    Prototypes and coefficients of the first pass of a sharpness rule are kept in the second.

    Arguments:
        alpha: of the prototypes' cross-entropy, >= 0.
        mu: of the entropies, >= 0.
        entropy_epochs: how many epochs of the window have entropies, >= 0.
        momentum: what stays of the old prototypes, in [0, 1).
        fraction: how much of the training samples makes prototypes, in (0, 1]; the parts take turns.
        first_epoch: of the window, >= 1.
        last_epoch: of the window, >= 1; None is the end of the run. Outside it this is joint training.
        extend: admit more than two modalities.
        variant: "paper" or "code", as above.

    >>> PMR(momentum=1.0)
    Traceback (most recent call last):
    ValueError: `momentum` must be >= 0 and < 1, received 1.0.
    """

    about: ClassVar[About] = About(
        paper="Fan, Xu, Wang, Wang, Guo, CVPR 2023",
        family="objective",
        changes="adds losses on the distances of features to class prototypes",
        heads="none; a prototype per class and modality",
        most=2,
        extension={"extend": True},
        neutral=("joint", {"alpha": 0.0, "mu": 0.0}),
        pairs="rules climb on the whole loss, with the prototypes and coefficients of the first pass; any optimizer",
    )

    alpha: Annotated[float, Range(ge=0), Search(0.2, 5.0, log=True)] = 1.0
    mu: Annotated[float, Range(ge=0), Search(1e-4, 0.1, log=True)] = 0.01
    entropy_epochs: Annotated[int, Range(ge=0)] = 10
    momentum: Annotated[float, Range(ge=0, lt=1), Search(0.0, 0.8)] = 0.2
    fraction: Annotated[float, Range(gt=0, le=1)] = 0.1
    first_epoch: Annotated[int, Range(ge=1)] = 1
    last_epoch: Annotated[int | None, Range(ge=1)] = None
    extend: bool = False
    variant: Literal["paper", "code"] = "paper"

    def passes(self, modalities: int) -> Passes:
        """Return one pass, and forward passes of the samples that make the prototypes (in every epoch of the window)."""
        return Passes(forward=1.0 + self.fraction)

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Return the model as it is.

        Raises:
            ValueError: for one modality, and for more than two unless they are asked for.
        """
        if len(model.modalities) > 2 and not self.extend:
            raise ValueError(
                f"PMR is defined for 2 modalities, received {len(model.modalities)}: {', '.join(model.modalities)}. Set "
                "`method.extend true` (an extension of ours) to compare each with the best and the slowest."
            )
        return compared("PMR", model)

    def gradients(self, run: Run, batch: Batch) -> Output:
        """Make the epoch's prototypes before anything of its first step is done, then the gradients."""
        self._refresh(run, batch)
        return super().gradients(run, batch)

    def loss(self, run: Run, output: Output, batch: Batch) -> Tensor:
        """Return the fused loss, and what the prototypes add to it."""
        fused = per_sample_loss(output.logits, batch.target)
        if not within(run, self.first_epoch, self.last_epoch):
            return fused
        self._refresh(run, batch)  # for a caller that asks for the loss alone
        judged = [_judged(run, output, batch, place) for place in range(len(run.modalities))]
        beta, gamma = run.once("coefficients", lambda: self._coefficients(run, judged))
        run.notes["coefficients"] = [round(v, 6) for v in beta.tolist()]
        for place, (cross_entropy, entropy, _) in enumerate(judged):
            fused = fused + self.alpha * beta[place] * cross_entropy - self.mu * gamma[place] * entropy
        return fused

    def _coefficients(self, run: Run, judged: list["Judged"]) -> tuple[Tensor, Tensor]:
        scores = torch.stack([each.score for each in judged]).detach()
        none = torch.zeros_like(scores)
        if not scores.isfinite().all():  # a modality of which this batch says nothing
            return none, none
        if self.variant == "code":
            return (scores < scores.max()).to(scores), none
        beta, gamma = coefficients(scores)
        return beta, gamma if run.epoch < self.first_epoch + self.entropy_epochs else none

    def _refresh(self, run: Run, batch: Batch) -> None:
        """Move the prototypes, once in an epoch of the window; second passes and runs gone on with find them made."""
        made = run.state.get("made_in") == run.epoch
        if made or not within(run, self.first_epoch, self.last_epoch):
            return
        if batch.target.dim() != 1 or batch.target.is_floating_point():
            raise ValueError(
                "PMR has a prototype for every class and needs integer classes (N,), received a target "
                f"{tuple(batch.target.shape)} of {batch.target.dtype}. Use a method without, joint for instance."
            )
        parts = max(1, int(1 / self.fraction + 1e-9))
        turn = (run.epoch - 1) % parts
        try:
            batches = run.train_batches(turn * self.fraction, min(1.0, (turn + 1) * self.fraction))
        except ValueError as error:
            raise ValueError(f"PMR has no samples to make prototypes of. {error} Set `method.fraction`.") from error
        sums, counts = _class_sums(run, batches)
        prototypes = run.state.setdefault("prototypes", {})
        for name in run.modalities:
            none = {"means": torch.zeros_like(sums[name]), "known": torch.zeros_like(counts[name], dtype=torch.bool)}
            old = {key: value.to(sums[name].device) for key, value in prototypes.get(name, none).items()}
            means, known = moved(old["means"], old["known"], sums[name], counts[name], self.momentum)
            prototypes[name] = {"means": means, "known": known}
        run.state["made_in"] = run.epoch


class Judged(NamedTuple):
    """What prototypes say of one modality: `(N,)` cross-entropies and entropies, 0 for samples left out; the score."""

    cross_entropy: Tensor
    entropy: Tensor
    score: Tensor


def _judged(run: Run, output: Output, batch: Batch, place: int) -> Judged:
    name = run.modalities[place]
    features, made = pooled(output.features[name]), run.state["prototypes"][name]
    means, known = made["means"].to(features), made["known"].to(features.device)
    there = torch.ones_like(batch.target, dtype=torch.bool)
    if batch.present is not None:
        there = of_rows(batch.present, len(features))[:, place]
    if not known.any():
        nothing = features.new_zeros(len(features))
        return Judged(nothing, nothing, features.new_tensor(torch.nan))
    log_p = log_posterior(features, means[known])
    column = (known.cumsum(0) - 1)[batch.target].clamp_min(0)
    own, counted = log_p.gather(1, column[:, None])[:, 0], there & known[batch.target]
    return Judged(
        cross_entropy=torch.where(counted, -own, 0),
        entropy=torch.where(there, -(log_p.exp() * log_p).sum(1), 0),
        score=own.exp()[counted].mean(),
    )


@torch.no_grad()
def _class_sums(run: Run, batches: Iterator[Batch]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return modality -> sums of its features by class `(C, d)`, and how many samples `(C,)`, in evaluation mode."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    with shapley.evaluating(run.network):
        for batch in batches:
            for place, (name, feature) in enumerate(run.network.encode(batch.inputs).items()):
                h = pooled(feature)
                of_class = functional.one_hot(batch.target.long(), run.num_classes).to(h)
                if batch.present is not None:
                    of_class = of_class * of_rows(batch.present, len(h))[:, place, None]
                sums[name] = sums.get(name, 0) + of_class.T @ h
                counts[name] = counts.get(name, 0) + of_class.sum(0)
    return sums, counts
