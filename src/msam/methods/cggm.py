"""CGGM: classifier-guided gradient modulation (Guo, Jin, Chen, Zhao, NeurIPS 2024)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Run
from msam.methods._gradients import parameters, scale
from msam.methods._heads import where_there
from msam.methods._scores import accuracy, compared
from msam.models import MultimodalModel
from msam.tasks import per_sample_loss
from msam.types import Batch, Output

Heard = dict[nn.Module, list[Tensor]]
SMALLEST = 1e-8


def balance(delta: Tensor) -> Tensor:
    """Return `B_m = (S - delta_m) / S`, `S = sum_j delta_j + 1e-8`, `(M,)` from `(M,)`: large for what improves little.

    They sum to M - 1, to M where the deltas cancel or vanish; where deltas differ in sign they may be negative and large.

    >>> balance(torch.tensor([0.3, 0.1]))
    tensor([0.2500, 0.7500])
    >>> balance(torch.tensor([0.05, -0.02, -0.01]))
    tensor([-1.5000,  2.0000,  1.5000])
    >>> balance(torch.zeros(2))
    tensor([1., 1.])
    """
    total = delta.sum() + SMALLEST
    return (total - delta) / total


def direction_loss(balance: Tensor, similarity: Tensor) -> Tensor:
    """Return `L_gm = (1/M) sum_m (|B_m| - B_m s_m)`, with `s_m` the cosine between modality m and the fusion.

    >>> direction_loss(torch.tensor([0.5, 1.5]), torch.tensor([1.0, 0.0]))
    tensor(0.7500)
    """
    return (balance.abs() - balance * similarity).mean()


def layer_gradient(logits: Tensor, target: Tensor, inputs: list[Tensor]) -> Tensor:
    """Return the gradient `(C, d)` of the mean loss in the weight of the linear layer that gives the logits.

    It is `(softmax(z) - onehot(y))^T x / N`, of labels `(sigmoid(z) - y)^T x / (N C)`, and carries the graph of logits and
    inputs.

    Arguments:
        logits: `(N, C)`.
        target: `(N,)` classes, or `(N, C)` labels.
        inputs: what the layer was given, `(N, d)`, once for every time that it was called for these logits.

    >>> layer_gradient(torch.zeros(1, 2), torch.tensor([0]), [torch.tensor([[3.0, 1.0]])])
    tensor([[-1.5000, -0.5000],
            [ 1.5000,  0.5000]])
    """
    if target.dim() == 1:
        residual = logits.softmax(-1) - functional.one_hot(target.long(), logits.shape[-1])
    else:
        residual = (logits.sigmoid() - target.to(logits.dtype)) / logits.shape[-1]
    return residual.T @ torch.stack(inputs).sum(0).to(residual.dtype) / len(residual)


@dataclass(frozen=True)
class CGGM(Method):
    """Classifiers on detached features tell who improves fastest; the others are given larger gradients, and a say.

    Every modality m has a classifier that its encoder never feels. With `e_m` the classifier's accuracy on the batch:

        delta_m = e_m - e_m of the batch before (0 before the first)
        B_m     = sum_{j != m} delta_j / sum_j delta_j
        L       = CE(z, y) + direction_weight L_gm
        L_gm    = (1/M) sum_m (|B_m| - B_m cos(g_m, G_m))
        .grad of encoder m *= rho B_m

    `g_m` is the gradient of the classifier's loss in its last layer, detached; `G_m` that of the fused loss in those
    columns of the fusion's last layer that meet m, with its graph. The classifiers train beside, by their own
    cross-entropy.

    Paper and official code: the code compares the weights of the two layers where the paper says gradients, and adds
    the `L_gm` of the batch before, so that all it does is to pull the fusion's weight ("code"). "paper", the default,
    compares gradients of this batch; they are linear layers', so their graph needs no second backward pass. Deltas are
    taken from batch to batch in both: samples differ, so deltas differ in sign, and B may be huge or negative, an
    ascent. The code lets it be; the paper says nothing of it, and "paper" holds B in [0, max_balance]. The code gives the
    classifiers an optimizer of their own at half the learning rate; here they are in the one optimizer with a factor on
    their rate. The code clips all gradients but the classifiers' at 0.8; no clipping by default, see `clip`.

    From two modalities on, any number. Any fusion whose last layer is linear: where its columns meet the features (late,
    concat) the classifier is linear and of their shape, elsewhere (early) it has a hidden layer of the width of that last
    layer.
    `B` of the first pass of a sharpness rule is kept in the second, and so is what the code remembers of the batch before;
    both passes are clipped, and so is whatever a rule mixes of them.

    Arguments:
        rho: factor on the gradients of all encoders, > 0.
        direction_weight: of `L_gm`, >= 0.
        classifier_rate: factor on the learning rate of the classifiers, > 0.
        max_balance: upper end of B in variant "paper", > 0; None leaves B as it is, at both ends.
        clip: largest norm of the gradient of everything but the classifiers, > 0; None for none. Not for 16-mixed
            precision, whose gradients are still scaled here.
        variant: "paper" or "code", as above.

    >>> CGGM(rho=0.0)
    Traceback (most recent call last):
    ValueError: `rho` must be > 0, received 0.0.
    """

    about: ClassVar[About] = About(
        paper="Guo, Jin, Chen, Zhao, NeurIPS 2024",
        family="optimization",
        changes="scales encoders' gradients, adds a loss on the direction of the fusion's",
        heads="one classifier per modality, on detached features",
        pairs="rules reuse B of the first pass; an adaptive optimizer cancels what is constant in B",
    )

    rho: Annotated[float, Range(gt=0), Search(0.5, 2.0, log=True)] = 1.3
    direction_weight: Annotated[float, Range(ge=0), Search(0.01, 0.5, log=True)] = 0.1
    classifier_rate: Annotated[float, Range(gt=0)] = 0.5
    max_balance: Annotated[float | None, Range(gt=0)] = 2.0
    clip: Annotated[float | None, Range(gt=0)] = None
    variant: Literal["paper", "code"] = "paper"

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Add a classifier per modality whose last layer can be compared with the fusion's.

        Raises:
            ValueError: for one modality: its balance would be 0, and its encoder would rest.
        """
        compared("CGGM", model)
        width, dims = _columns(model, model.modalities[0]).shape[1], model.fusion.dims
        meets = model.fusion.splits and all(_columns(model, name).shape[1] == dim for name, dim in dims.items())
        model.add_heads(num_classes, hidden=None if meets else width)
        return model

    def rate(self, run: Run, group: Mapping[str, Any]) -> float:
        """Return `classifier_rate` for the classifiers, 1 for all others."""
        classifiers = {id(p) for p in run.network.heads.parameters()}
        return self.classifier_rate if all(id(p) in classifiers for p in group["params"]) else 1.0

    def gradients(self, run: Run, batch: Batch) -> Output:
        """Train model and classifiers in one backward pass, then scale the encoders' gradients."""
        network = run.network
        with _listening(network) as heard:
            output: Output = run.model(batch.inputs, batch.present)
            guesses = network.head_logits({name: h.detach() for name, h in output.features.items()})
        loss = self.loss(run, output, batch).mean()
        loss = loss if output.extra_loss is None else loss + output.extra_loss
        own = (
            where_there(torch.stack([per_sample_loss(z, batch.target) for z in guesses.values()]), batch).mean(1).sum()
        )
        b = run.once("balance", lambda: self._balance(run, guesses, batch))
        if self.variant == "paper":
            direction = direction_loss(b, _of_gradients(network, output.logits, guesses, batch.target, heard))
        else:
            direction = _of_the_batch_before(run, b)
        run.backward(loss + self.direction_weight * direction + own)
        for name, factor in zip(run.modalities, self.rho * b, strict=True):
            scale(parameters(network, name, ("encoder",)), factor)
        if self.clip is not None:
            classifiers = {id(p) for p in network.heads.parameters()}
            nn.utils.clip_grad_norm_([p for p in network.parameters() if id(p) not in classifiers], self.clip)
        run.notes["coefficients"] = [round(v, 6) for v in b.tolist()]
        return output

    def _balance(self, run: Run, guesses: Mapping[str, Tensor], batch: Batch) -> Tensor:
        now = accuracy(guesses, batch.target, batch.present)
        before = run.state.get("accuracy", torch.zeros_like(now)).to(now)
        run.state["accuracy"] = now
        b = balance(now - before)
        return b if self.variant == "code" or self.max_balance is None else b.clamp(0, self.max_balance)


def _of_gradients(
    network: MultimodalModel, logits: Tensor, guesses: Mapping[str, Tensor], target: Tensor, heard: Heard
) -> Tensor:
    """Return the cosines `(M,)` between each classifier's gradient and the fusion's, with the fusion's graph."""
    cosines = []
    for name in network.modalities:
        own = layer_gradient(guesses[name], target, heard[_last(network.heads[name])]).detach()
        weight, columns = network.fusion.weight_of(name)
        fused = layer_gradient(logits, target, heard[_layer_of(network, weight)])[:, columns]
        cosines.append(functional.cosine_similarity(own.flatten(), fused.flatten(), dim=0))
    return torch.stack(cosines)


def _of_the_batch_before(run: Run, b: Tensor) -> Tensor:
    """Return the `L_gm` of weights of the batch before, 0 for the first, and remember that of this batch.

    Its gradient lies where the weights were then: it is kept, and given back by a linear function of the weights now.
    """
    before = run.once("before", lambda: run.state.get("direction"))
    names, network = run.modalities, run.network
    if not run.perturbed:
        with torch.enable_grad():
            fused = {name: _columns(network, name).detach().requires_grad_() for name in names}
            own = {name: _last(network.heads[name]).get_parameter("weight").detach() for name in names}
            cosines = [functional.cosine_similarity(own[n].flatten(), fused[n].flatten(), dim=0) for n in names]
            value = direction_loss(b, torch.stack(cosines))
            slopes = torch.autograd.grad(value, list(fused.values()))
        run.state["direction"] = {"value": value.detach(), "slopes": list(slopes)}
    if before is None:
        return b.new_zeros(())
    pairs = zip(names, before["slopes"], strict=True)
    linear = torch.stack([(_columns(network, name) * slope.to(b)).sum() for name, slope in pairs]).sum()
    value = before["value"].to(b)
    return value + linear - linear.detach()


def _columns(network: MultimodalModel, name: str) -> Tensor:
    """Return the part of the fusion's last weight that meets a modality."""
    weight, columns = network.fusion.weight_of(name)
    return weight[:, columns]


def _last(head: nn.Module) -> nn.Module:
    return head[-1] if isinstance(head, nn.Sequential) else head


def _layer_of(network: MultimodalModel, weight: nn.Parameter) -> nn.Module:
    return next(module for module in network.fusion.modules() if getattr(module, "weight", None) is weight)


@contextmanager
def _listening(network: MultimodalModel) -> Iterator[Heard]:
    """Note what the last layers of fusion and classifiers are given."""
    fused = [_layer_of(network, network.fusion.weight_of(name)[0]) for name in network.modalities]
    layers = dict.fromkeys([*fused, *map(_last, network.heads.values())])
    heard: Heard = {layer: [] for layer in layers}
    handles = [layer.register_forward_pre_hook(lambda m, given: heard[m].append(given[0])) for layer in layers]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
