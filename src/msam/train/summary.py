"""What an epoch's line tells of its steps, where they have no lines of their own."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from torch import Tensor


def told(last: Mapping[str, Any], shares: Tensor | None) -> dict[str, Any]:
    """Return what one step contributes: share and radius of the rule, contributions where the rule asked for them."""
    return {
        "share": last.get("share"),
        "radius": last.get("radius"),
        "contributions": None if shares is None else shares.tolist(),
    }


def means(steps: Sequence[Mapping[str, Any]], modalities: Sequence[str]) -> dict[str, Any]:
    """Return the means over the steps that know a number, and in which share of them each modality dominates.

    >>> steps = [{"share": s, "radius": 0.1, "contributions": [s, 1 - s]} for s in (0.75, 0.25)]
    >>> means(steps, ["audio", "image"])["dominance"]
    {'audio': 0.5, 'image': 0.5}
    """
    known = {key: [s[key] for s in steps if s[key] is not None] for key in ("share", "radius")}
    found: dict[str, Any] = {key: fmean(values) for key, values in known.items() if values}
    heard = [step["contributions"] for step in steps if step["contributions"] is not None]
    if heard:
        dominant = [values.index(max(values)) for values in heard]
        found["contributions"] = {name: fmean(v[m] for v in heard) for m, name in enumerate(modalities)}
        found["dominance"] = {name: dominant.count(m) / len(heard) for m, name in enumerate(modalities)}
    return found
