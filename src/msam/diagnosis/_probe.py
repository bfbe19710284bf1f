"""What an encoder's features tell: a linear probe, and how far training the encoder by itself would bring it."""

import copy
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from msam import tasks
from msam.diagnosis._task import Unit
from msam.diagnosis._views import View
from msam.tasks._targets import Told
from msam.types import Batch

STRENGTHS = (1e-4, 1e-2, 1.0)
"""Weights of the L2 penalty among which a fifth of the training samples chooses."""

STEPS, RATE = 100, 1e-3
"""Iterations of L-BFGS; learning rate of AdamW for unimodal training."""


class Goal(NamedTuple):
    """What is learned: a number of outputs for a task, in its unit."""

    task: tasks.Task
    outputs: int
    unit: Unit

    def loss(self, learned: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of outputs `(N, C)` in the unit."""
        return self.task.loss(learned, self.unit.learned(target)).mean()


class Probe(NamedTuple):
    """A linear map of standardised features."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    unit: Unit

    def logits(self, features: Tensor) -> Tensor:
        """Return answers `(N, C)` to features `(N, d)`."""
        x = (features.to(self.mean.device).double() - self.mean) * self.scale
        return self.unit.answered(x @ self.weight.T + self.bias)

    def begin(self, head: nn.Linear) -> None:
        """Give a head on the features as they are the answers of the probe, in its unit."""
        weight = self.weight * self.scale
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(self.bias - weight @ self.mean)


def probe(features: Tensor, target: Tensor, goal: Goal, seed: int = 0) -> Probe:
    """Return a linear probe of the features with the loss of the task, its penalty chosen on a held-out fifth of them.

    Multinomial logistic regression for classes, a logistic regression for each label, ridge regression for numbers.

    Arguments:
        features: `(N, d)`.
        target: as the task takes it, `(N, ...)`.
        goal: what is learned.
        seed: of what is held out.

    >>> x = torch.tensor([[0.0], [0.1], [1.0], [1.1]] * 5)
    >>> y = torch.tensor([0, 0, 1, 1] * 5)
    >>> goal = Goal(tasks.load("single-label"), 2, Unit(torch.zeros(1), 1.0))
    >>> bool((probe(x, y, goal).logits(x).argmax(1) == y).all())
    True
    """
    place = "cpu" if features.device.type == "mps" else features.device  # which has no double precision
    features, target = features.detach().to(place).double(), target.to(place)
    drawn = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed)).to(features.device)
    held, rest = drawn[: len(drawn) // 5], drawn[len(drawn) // 5 :]
    best = STRENGTHS[0]
    if len(held):
        found = [_fitted(features[rest], target[rest], goal, strength) for strength in STRENGTHS]
        losses = [float(goal.task.loss(p.logits(features[held]), target[held]).mean()) for p in found]
        best = STRENGTHS[losses.index(min(losses))]
    return _fitted(features, target, goal, best)


def _fitted(features: Tensor, target: Tensor, goal: Goal, strength: float) -> Probe:
    mean, scale = features.mean(0), 1 / features.std(0, correction=0).clamp_min(1e-6)
    x = (features - mean) * scale
    weight = torch.zeros(goal.outputs, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(goal.outputs, dtype=x.dtype, device=x.device, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = goal.loss(x @ weight.T + bias, target) + strength / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    return Probe(weight.detach(), bias.detach(), mean, scale, goal.unit)


class Trained(NamedTuple):
    """A copy of the model whose encoder of one modality was trained by itself, with a linear head on its feature."""

    model: nn.Module
    head: nn.Module


def head_of(goal: Goal, probe: Probe, seed: int = 0) -> nn.Linear:
    """Return the linear head with which an encoder is trained: a fresh one, of a regression what the probe has found.

    A class is told by the largest logit, whatever its size, but numbers have a size, which a fresh head would have to find
    first, for many more steps than the encoder needs.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(probe.weight.shape[1], goal.outputs)
    if goal.task.name == "regression":
        probe.begin(head)
    return head


def trained(view: View, modality: str, batches: Iterable[Batch], told: Told, goal: Goal, head: nn.Linear) -> Trained:
    """Return a modality's encoder after training it alone, from its weights as they are, with a linear head.

    AdamW at a learning rate of 1e-3 with the loss of the task; the model itself is not changed. From its weights as they
    are, so that an encoder that was pretrained is not set back.

    Arguments:
        view: the model.
        modality: whose encoder.
        batches: what to train on, epochs one after another.
        told: checks their targets.
        goal: what is learned.
        head: from its feature to outputs in the unit; trained with it.
    """
    model, head = copy.deepcopy(view.model), head.to(view.device())
    twins = dict(zip(view.model.parameters(), model.parameters(), strict=True))
    encoder = [twins[p].requires_grad_(True) for p in view.encoder_parameters(modality)]
    optimizer = torch.optim.AdamW([*encoder, *head.parameters()], lr=RATE)
    model.train()
    with torch.enable_grad():
        for batch in batches:
            feature = view.alone(model, batch, modality)
            target = told.checked(batch.target, len(feature), goal.outputs)
            optimizer.zero_grad()
            goal.loss(head(feature.float()), target).backward()
            optimizer.step()
    return Trained(model.eval(), head)
