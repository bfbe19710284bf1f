"""What an encoder is."""

from collections.abc import Sequence

from torch import Tensor, nn


class Encoder(nn.Module):
    """A stack of layers that knows the size of the feature it gives.

    Attributes:
        dim: size of the feature: `(B, dim)`, or `(N, dim)` where a sample holds several segments, or `(N, ..., dim)` where
            it holds a feature for each of several positions, of which a fusion takes the mean if it does not say otherwise.
    """

    def __init__(self, layers: Sequence[nn.Module], dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Return features `(B, dim)`."""
        return self.layers(x)
