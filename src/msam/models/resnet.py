"""ResNet-18 of one picture, of a spectrogram, of the frames of a video; trained from scratch, as the paper does.

Names and shapes of parameters are torchvision's, so that its weights can be loaded; torchvision itself is not needed.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from msam import checks
from msam.models._encoder import Encoder

WIDTHS = (64, 128, 256, 512)
SMALLEST = 8
"""Shortest side of an input, in pixels: four of the five halvings still halve something."""


def resnet18(shape: Sequence[int]) -> Encoder:
    """Return the encoder of pictures and spectrograms: ResNet-18, then the mean over all positions; 512 features.

    Arguments:
        shape: (C, H, W), C = 1 or 3 channels, sides of at least 8.

    Raises:
        ValueError: for another shape.

    >>> import torch
    >>> resnet18((1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 512])
    """
    _check("resnet18", shape, ("C", "H", "W"))
    return Encoder([ResNet18(shape[0]), nn.AdaptiveAvgPool2d(1), nn.Flatten()], WIDTHS[-1])


def resnet18_frames(shape: Sequence[int]) -> Encoder:
    """Return the encoder of a few frames: ResNet-18 of each, then the mean over time and positions; 512 features.

    Frames go through the net as samples of one batch, so that BatchNorm sees them all alike, as in the codes of OGM-GE and
    AGM.

    Arguments:
        shape: (C, T, H, W), C = 1 or 3 channels, T frames of sides of at least 8.

    Raises:
        ValueError: for another shape.

    >>> import torch
    >>> resnet18_frames((3, 2, 32, 32))(torch.zeros(2, 3, 2, 32, 32)).shape
    torch.Size([2, 512])
    """
    _check("resnet18_frames", shape, ("C", "T", "H", "W"))
    return Encoder([OverFrames(ResNet18(shape[0])), nn.AdaptiveAvgPool3d(1), nn.Flatten()], WIDTHS[-1])


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016): stem, four stages of two basic blocks, and a classifier if there are classes.

    Initial weights are those of the codes of OGM-GE and AGM: convolutions Kaiming-normal by what goes out, BatchNorm
    weights `N(1, 0.02)`, biases 0. (On CREMA-D these codes then draw them a second time, otherwise; we do not.)

    Arguments:
        in_channels: 1 or 3.
        num_classes: number of logits; None for none, the output is then the last stage's map.

    Raises:
        ValueError: for another number of channels, or no class.

    >>> sum(p.numel() for p in ResNet18(3).parameters()), sum(p.numel() for p in ResNet18(3, 1000).parameters())
    (11176512, 11689512)
    """

    def __init__(self, in_channels: int = 3, num_classes: int | None = None) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise ValueError(f"`in_channels` must be 1 or 3, received {in_channels!r}.")
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for number, width in enumerate(WIDTHS, start=1):
            before = WIDTHS[max(0, number - 2)]
            first = BasicBlock(before, width, stride=1 if number == 1 else 2)
            self.add_module(f"layer{number}", nn.Sequential(first, BasicBlock(width, width)))
        self.num_classes = num_classes
        if num_classes is not None:
            checks.in_range("num_classes", num_classes, checks.Range(ge=1))
            self.fc = nn.Linear(WIDTHS[-1], num_classes)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Return the map `(B, 512, h, w)` of pictures `(B, C, H, W)`, or logits `(B, classes)`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return x if self.num_classes is None else self.fc(x.mean((2, 3)))

    def load_torchvision(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take the weights of torchvision's `resnet18`, all of them but its classifier's (`fc`) where there is none here.

        For one channel the first convolution's three are summed: a grey picture then gives what its copy in three channels
        gave.

        Arguments:
            state_dict: 122 tensors by torchvision's names; read a file with `torch.load(path, weights_only=True)`.

        Raises:
            ValueError: if names or shapes are not those of ResNet-18: saying which.
        """
        given = dict(state_dict)
        if self.num_classes is None:
            given = {key: value for key, value in given.items() if key not in ("fc.weight", "fc.bias")}
        stem = given.get("conv1.weight")
        if stem is not None and stem.dim() == 4 and self.conv1.in_channels == 1 and stem.shape[1] == 3:
            given["conv1.weight"] = stem.sum(1, keepdim=True)
        try:
            self.load_state_dict(given)
        except RuntimeError as error:
            raise ValueError(f"These are not the weights of torchvision's resnet18. {error}") from None

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a way around them, which has a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        changes = stride != 1 or before != width
        around = [nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)] if changes else []
        self.downsample = nn.Sequential(*around)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, width, h, w)`."""
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(inner + self.downsample(x))


class OverFrames(nn.Module):
    """A net of pictures on every frame: `(B, C, T, H, W)` -> `(B, d, T, h, w)`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps of the frames, in the order of the frames."""
        maps = self.net(x.transpose(1, 2).flatten(0, 1))
        return maps.unflatten(0, (len(x), -1)).transpose(1, 2)


def _check(name: str, shape: Sequence[int], axes: Sequence[str]) -> None:
    well = len(shape) == len(axes) and shape[0] in (1, 3) and min(shape[-2:]) >= SMALLEST and min(shape) >= 1
    if not well:
        raise ValueError(
            f"The encoder {name!r} is for inputs ({', '.join(axes)}) with C = 1 or 3 and sides of at least {SMALLEST}, "
            f"received {tuple(shape)}. Choose another encoder for this modality, mlp for instance takes any shape."
        )
