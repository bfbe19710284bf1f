"""What a diagnosis will take, said before it begins."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Passes of the model.

    Attributes:
        coalitions: how many are asked for.
        exact: whether those are all there are.
        forward: forward passes of the whole model over every sample.
        fused: forward passes of the fusion alone over every sample.
        training: forward passes over training samples, for the probes.
        trained: forward and backward passes over the training samples, of one encoder each.
        sharp: encoders in which sharpness is measured.

    >>> print(Cost(coalitions=128, exact=False, forward=136))
    128 coalitions, drawn by random orders; 136 forward passes of the model over every sample
    """

    coalitions: int
    exact: bool
    forward: int
    fused: int = 0
    training: int = 0
    trained: int = 0
    sharp: int = 0

    def __str__(self) -> str:
        kind = "all there are" if self.exact else "drawn by random orders"
        passes = f"{_many(self.forward, 'forward pass', 'es')} of the model"
        passes += f" and {self.fused} of its fusion" if self.fused else ""
        passes += " over every sample"
        passes += f", {self.training} over training samples" if self.training else ""
        parts = [f"{_many(self.coalitions, 'coalition')}, {kind}", passes]
        parts += [f"{_many(self.trained, 'epoch')} of training an encoder"] if self.trained else []
        parts += [f"sharpness within {_many(self.sharp, 'encoder')}"] if self.sharp else []
        return "; ".join(parts)


def _many(count: int, word: str, plural: str = "s") -> str:
    return f"{count} {word}{'' if count == 1 else plural}"
