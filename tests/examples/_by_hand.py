"""Algorithm 1 by hand, in one process and with nothing of `msam.sharpness`: what every trainer must equal."""

import importlib
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

FOLDER = Path(__file__).parents[2] / "examples" / "trainers"
THIRD_PARTY = (
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",
    "ignore:The '.*dataloader' does not have many workers",
)
if (
    str(FOLDER) not in sys.path
):  # examples import one another by name, as scripts in one folder do; so do spawned processes
    sys.path.append(str(FOLDER))


def example(name):
    return importlib.import_module(name)


def weights(model):
    return [p.detach() for p in model.parameters()]


def by_hand(*, dtype=None, largest=None, schedule=False, ranks=1, per_worker=False):
    """Train; with `ranks`, gradients and contributions are means over equal parts of every batch."""
    problem = example("_problem")
    model = problem.make_model()
    optimizer = problem.make_optimizer(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    parameters = list(model.parameters())
    for x, y in problem.make_batches() * problem.EPOCHS:
        optimizer.zero_grad()
        parts = [({n: v.chunk(ranks)[r] for n, v in x.items()}, y.chunk(ranks)[r]) for r in range(ranks)]
        first, shares = zip(*(_gradients(problem, model, part, dtype) for part in parts), strict=True)
        share = float(_mean(shares).max())
        if per_worker:
            second = [_above(problem, model, [part], g, dtype) for part, g in zip(parts, first, strict=True)]
        else:
            first = [[_mean(g) for g in zip(*first, strict=True)]]
            second = [_above(problem, model, parts, first[0], dtype)]
        spent = [
            [torch.lerp(b, a, 1 - share) for a, b in zip(*both, strict=True)]
            for both in zip(first, second, strict=True)
        ]
        for p, grads in zip(parameters, zip(*spent, strict=True), strict=True):
            p.grad = _mean(grads)
        if largest is not None:
            torch.nn.utils.clip_grad_norm_(parameters, largest)
        optimizer.step()
        if schedule:
            scheduler.step()
    return [p.detach() for p in parameters]


def _mean(values):
    return sum(values) / len(values)


def _gradients(problem, model, part, dtype):
    x, y = part
    with torch.autocast("cpu", dtype) if dtype else nullcontext():
        output = model(x)
        loss = problem.criterion(output.logits, y)
        shares = problem.contributions_of(model, output, y)
    return torch.autograd.grad(loss, list(model.parameters())), shares


def _above(problem, model, parts, gradients, dtype):
    """Return the mean gradient of parts at theta + rho g / |g|; back to theta."""
    parameters = list(model.parameters())
    theta = [p.detach().clone() for p in parameters]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    with torch.no_grad():
        for p, g in zip(parameters, gradients, strict=True):
            p.add_(g, alpha=problem.RHO / float(norm))
    found = [_gradients(problem, model, part, dtype)[0] for part in parts]
    with torch.no_grad():
        for p, saved in zip(parameters, theta, strict=True):
            p.copy_(saved)
    return [_mean(g) for g in zip(*found, strict=True)]
