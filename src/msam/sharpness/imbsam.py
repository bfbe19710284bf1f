"""ImbSAM: sharpness only where samples are few (Zhou, Qu, Xu, Shen, ICCV 2023), the rule that inspired M-SAM."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from msam.checks import Range, Search
from msam.sharpness._common import Common, Contributions, Direction
from msam.sharpness._perturb import Sharpness
from msam.sharpness._split import Parts, backward_of_parts
from msam.sharpness._tensors import Gradients, norm, vector


class ImbSAM(Sharpness):
    r"""`.grad = grad L_head(theta) + grad L_tail(theta + rho g_t / ||g_t||)`, `g_t = grad L_tail(theta)` (Algorithm 1).

    The loss is split by samples, `L_head + L_tail = L`: samples of the classes in `tail` climb, the others do not. Here the
    two losses really differ, and so do their gradients; in M-SAM as printed they are multiples of one another. The paper
    takes as tail the classes with few samples (20 in its code); the official code counts the tail's loss twice,
    which is not done here.

    It needs the loss of every sample, so it has no `perturbed()` block: use `backward(..., target=...)`. One step is two
    forwards and three backwards. Without a sample of the tail in the batch nothing climbs.

    Arguments:
        optimizer: any torch optimizer.
        rho: radius, >= 0.
        tail: the classes that climb.
        model: with it, BatchNorm running statistics are held during the second pass.
        common: see `Common`.

    Raises:
        ValueError: if `rho` or a class is negative, or the optimizer maximizes.

    Two samples at `w = 1` with losses `w^2 / 2`, the second of the tail; their mean splits into `w^2 / 4` each. The first
    gives 0.5 at theta, the second `1.5 / 2` at 1.5:

    >>> w = nn.Parameter(torch.tensor(1.0))
    >>> rule = ImbSAM(torch.optim.SGD([w], lr=0.1), rho=0.5, tail=(1,))
    >>> output = rule.backward(lambda x: x * w**2 / 2, torch.ones(2), lambda z: z, target=torch.tensor([0, 1]))
    >>> w.grad
    tensor(1.2500)
    """

    by_block: ClassVar[bool] = False

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho: Annotated[float, Range(ge=0), Search(0.01, 0.5, log=True)] = 0.05,
        *,
        tail: tuple[int, ...] = (),
        model: nn.Module | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.tail = tuple(tail)
        if any(c < 0 for c in self.tail):
            raise ValueError(f"`tail` must hold classes, >= 0, received {self.tail}.")
        super().__init__(optimizer, rho, model=model, **common)

    @property
    def needs_samples(self) -> bool:
        """True: the loss is split by samples."""
        return True

    def direction(self, first: Gradients) -> Direction:
        """Return the tail's gradient itself."""
        return Direction(first, norm(first.values()))

    def backward(
        self,
        model: Callable[..., Any],
        inputs: Any,
        losses: Callable[[Any], Tensor],
        contributions: Contributions | Callable[[Any], Contributions] | None = None,
        *,
        present: Tensor | None = None,
        target: Tensor | None = None,
        backward: Callable[..., None] = Tensor.backward,
    ) -> Any:
        """Run both passes and leave the combined gradient in `.grad`; as in `Sharpness.backward`, with the classes.

        Raises:
            ValueError: if there is no `target`, or it is not one class per sample.
        """
        if target is None or target.dim() != 1 or target.is_floating_point():
            found = None if target is None else f"{tuple(target.shape)} of {target.dtype}"
            raise ValueError(f"ImbSAM needs the class of every sample, `target` (N,) of integers, received {found}.")
        rare = torch.isin(target, torch.tensor(self.tail, device=target.device, dtype=target.dtype))

        def parts(output: Any) -> Parts:
            loss = vector(losses(output))
            return _share_of(loss, rare), _share_of(loss, ~rare)

        return backward_of_parts(self, model, inputs, parts, present=present, backward=backward)


def _share_of(losses: Tensor, chosen: Tensor) -> Tensor | None:
    """Return what some samples add to the mean loss of the batch, None where there are none."""
    return losses[chosen].sum() / len(losses) if bool(chosen.any()) else None
