"""What the catalogue says of a method, beside what its signature and its docstring say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Family = Literal["data", "feed-forward", "objective", "optimization"]


@dataclass(frozen=True)
class About:
    """A method's entry in the catalogue.

    Attributes:
        paper: authors, venue and year.
        family: what it works on: the data, the feed-forward pass, the objective, or the optimization.
        changes: what it modulates, in a few words.
        heads: what it adds to the model for training, in a few words.
        early: whether it is defined for an early fusion, whose logits do not split into modalities.
        most: largest number of modalities it is defined for, None for any.
        extension: hyper-parameters that admit what the paper leaves undefined (early fusion, more modalities), or
            empty where it defines all or no extension is offered.
        ordered: whether the order of modalities matters by definition.
        still: hyper-parameters that switch its randomness off, or empty where there is none.
        neutral: the name of a simpler method, and the hyper-parameters that make this one equal to it on the parameters
            they share; None where there is none.
        pairs: what to know before pairing it with a sharpness rule or an adaptive optimizer.
    """

    paper: str = ""
    family: Family = "objective"
    changes: str = ""
    heads: str = "none"
    early: bool = True
    most: int | None = None
    extension: Mapping[str, Any] = field(default_factory=dict)
    ordered: bool = False
    still: Mapping[str, Any] = field(default_factory=dict)
    neutral: tuple[str, Mapping[str, Any]] | None = None
    pairs: str = ""

    def admitted(self, *, early: bool, modalities: int) -> Mapping[str, Any] | None:
        """Return the hyper-parameters that make it defined there: none, or those of its extension; None where it is not.

        Arguments:
            early: whether the fusion is an early one.
            modalities: how many there are.
        """
        beyond = (early and not self.early) or (self.most is not None and modalities > self.most)
        return (dict(self.extension) or None) if beyond else {}
