"""Joint training: one loss on the fused logits, nothing else. The baseline of every table."""

from dataclasses import dataclass
from typing import ClassVar

from msam.methods._about import About
from msam.methods._base import Method


@dataclass(frozen=True)
class Joint(Method):
    """`L = mean_b CE(z_b, y_b)` on the fused logits `z`; every parameter takes its plain gradient.

    It is what every other method is compared with ("Joint-Train" in the paper), and what a method does where it overrides
    nothing.

    >>> Joint().passes(2).cost
    1.0
    """

    stackable: ClassVar[bool] = True
    about: ClassVar[About] = About(paper="the baseline", family="objective", changes="nothing")
