"""What all examples train on: two modalities, three classes, four batches, fixed seeds; and what they share."""

import torch
from torch import Tensor, nn

import msam
from msam import Output, shapley

Example = tuple[dict[str, Tensor], Tensor]

RHO = 0.3
EPOCHS = 2
criterion = nn.CrossEntropyLoss()


def make_model() -> msam.MultimodalModel:
    """Return the model, the same one every time."""
    torch.manual_seed(0)
    encoders = {
        "audio": nn.Sequential(nn.Linear(6, 8), nn.Tanh()),
        "image": nn.Sequential(nn.Linear(10, 8), nn.Tanh()),
    }
    return msam.MultimodalModel(encoders, msam.SumFusion({"audio": 8, "image": 8}, num_classes=3))


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Return the plain optimizer that every example puts a rule beside."""
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def make_batches(batches: int = 4, size: int = 16) -> list[Example]:
    """Return batches `(inputs, target)`; the image says more about the class than the audio does."""
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(3, (batches * size,), generator=generator)
    inputs = {}
    for name, width, signal in (("audio", 6, 0.5), ("image", 10, 1.0)):
        centres = torch.randn(3, width, generator=generator)
        inputs[name] = signal * centres[target] + torch.randn(len(target), width, generator=generator)
    rows = [slice(size * i, size * (i + 1)) for i in range(batches)]
    return [({name: x[part] for name, x in inputs.items()}, target[part]) for part in rows]


def contributions_of(model: msam.MultimodalModel, output: Output, target: Tensor) -> Tensor:
    """Return what each modality contributes to the batch, `(M,)`."""
    return shapley.contributions(shapley.coalition_logits(model, output.features), target)


def summary(model: nn.Module) -> str:
    """Return the line that every example prints."""
    with torch.no_grad():
        losses = [criterion(model(x).logits, y) for x, y in make_batches()]
    return f"loss {torch.stack(losses).mean():.4f} after {EPOCHS} epochs"
