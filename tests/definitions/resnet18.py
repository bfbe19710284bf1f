"""ResNet-18 (He et al. 2016, Table 1) as a function of its weights, by torchvision's names; evaluation mode."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

STAGES = {"layer1": (64, 64, 1), "layer2": (64, 128, 2), "layer3": (128, 256, 2), "layer4": (256, 512, 2)}


def shapes(in_channels: int = 3, classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """Return the 122 names and shapes of torchvision's `resnet18().state_dict()`."""
    found = {"conv1.weight": (64, in_channels, 7, 7), **_norm("bn1", 64)}
    for stage, (before, width, stride) in STAGES.items():
        found |= {f"{stage}.0.conv1.weight": (width, before, 3, 3), **_norm(f"{stage}.0.bn1", width)}
        found |= {f"{stage}.0.conv2.weight": (width, width, 3, 3), **_norm(f"{stage}.0.bn2", width)}
        if stride == 2:
            found |= {f"{stage}.0.downsample.0.weight": (width, before, 1, 1)}
            found |= _norm(f"{stage}.0.downsample.1", width)
        found |= {f"{stage}.1.conv1.weight": (width, width, 3, 3), **_norm(f"{stage}.1.bn1", width)}
        found |= {f"{stage}.1.conv2.weight": (width, width, 3, 3), **_norm(f"{stage}.1.bn2", width)}
    return {**found, "fc.weight": (classes, 512), "fc.bias": (classes,)}


def features(w: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return the mean of the last map, `(B, 512)`."""
    x = F.relu(_normed(w, "bn1", F.conv2d(x, w["conv1.weight"], stride=2, padding=3)))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage, (_, _, stride) in STAGES.items():
        for block in (f"{stage}.0", f"{stage}.1"):
            step = stride if block.endswith(".0") else 1
            inner = F.conv2d(x, w[f"{block}.conv1.weight"], stride=step, padding=1)
            inner = F.relu(_normed(w, f"{block}.bn1", inner))
            inner = _normed(w, f"{block}.bn2", F.conv2d(inner, w[f"{block}.conv2.weight"], padding=1))
            if step == 2:
                x = F.conv2d(x, w[f"{block}.downsample.0.weight"], stride=2)
                x = _normed(w, f"{block}.downsample.1", x)
            x = F.relu(inner + x)
    return x.mean((2, 3))


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    vectors = {f"{name}.{kind}": (width,) for kind in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}


def _normed(w: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var, scale, shift = (
        w[f"{name}.{kind}"].view(1, -1, 1, 1) for kind in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift
