"""Modality dropout: ModDrop, Neverova, Wolf, Taylor and Nebout, IEEE TPAMI 2016."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Run
from msam.types import Batch, Output


def kept(present: Tensor, chance: Tensor, p: float) -> Tensor:
    """Return which modalities each sample keeps, `(B, M)` bool.

    One number `u` in [0, 1) per sample and modality decides: `keep = present and (u >= p or u is the sample's largest)`. A
    sample that would lose everything so keeps the largest of numbers that are then equally distributed below p: one of
    its modalities, each with the same probability. Absent ones take no part, and stay absent.

    Arguments:
        present: `(B, M)` bool, what each sample has.
        chance: `(B, M)` in [0, 1), the numbers u.
        p: probability in [0, 1] of being dropped.

    The second sample would lose both, the third lacks the first one:

    >>> present = torch.tensor([[True, True], [True, True], [False, True]])
    >>> kept(present, torch.tensor([[0.9, 0.2], [0.1, 0.3], [0.4, 0.0]]), p=0.5)
    tensor([[ True, False],
            [False,  True],
            [False,  True]])
    """
    largest = chance.where(present, chance.new_full((), -1.0)).amax(1, keepdim=True)
    return present & ((chance >= p) | (chance >= largest))


@dataclass(frozen=True)
class ModalityDropout(Method):
    """Every sample loses the feature of each of its modalities with probability p, but never all of them.

    `L = CE(f(k_1 h_1, .., k_M h_M), y)` with `k_m` in {0, 1} drawn per sample: the fusion must learn to answer from any of
    the modalities, and an encoder cannot hide behind another. A dropped feature is zeros, exactly as that of a sample
    which lacks the modality (`Batch.present`); features are not scaled up, here or in evaluation, which always has all.

    The paper draws the modalities independently, so that a sample may lose all of them and teaches biases alone. Here one
    is then kept, drawn uniformly from those it has: a modality is away with probability `p - p^M / M`, and at p = 1 every
    sample has exactly one. The paper pre-trains the encoders one by one and drops while it trains the fusion; here
    everything trains from the start. Encoders see the whole batch, their BatchNorm too; those of dropped features get
    no gradient from the sample.

    Any fusion, any number of modalities; with one it is joint training.

    Arguments:
        p: probability of losing a modality, in [0, 1]; at 0 this is joint training.

    >>> ModalityDropout(p=1.5)
    Traceback (most recent call last):
    ValueError: `p` must be >= 0 and <= 1, received 1.5.
    """

    about: ClassVar[About] = About(
        paper="Neverova, Wolf, Taylor, Nebout, IEEE TPAMI 2016",
        family="data",
        changes="features of random modalities are zeros",
        still={"p": 0.0},
        neutral=("joint", {"p": 0.0}),
        pairs="Both passes of a sharpness rule drop the same; contributions are those of the features that were left.",
    )

    p: Annotated[float, Range(ge=0, le=1), Search(0.05, 0.6)] = 0.3

    def gradients(self, run: Run, batch: Batch) -> Output:
        """Make the gradients of what the batch keeps; drawn once per step."""
        present = run.once("present", lambda: self._drawn(run, batch))
        return super().gradients(run, batch._replace(present=present))

    def _drawn(self, run: Run, batch: Batch) -> Tensor:
        given, like = batch.present, next(iter(batch.inputs.values()))
        if given is None:
            given = torch.ones(len(like), len(run.modalities), dtype=torch.bool, device=like.device)
        if given.dtype != torch.bool:
            return given  # the model says why it refuses it
        # in double precision two equal numbers, which would both stay, do not happen
        chance = torch.rand(given.shape, generator=run.generator, dtype=torch.float64)
        return kept(given, chance.to(given.device), self.p)
