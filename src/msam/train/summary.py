"""What the record tells of steps: a line for each, or their means in the epoch's line."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from torch import Tensor


def step_line(
    loss: float, shares: list[float], modalities: Sequence[str], last: Mapping[str, Any], notes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a step's line tells: loss, contributions, who dominates, share and radius, the method's notes.

    >>> step_line(0.5, [0.75, 0.25], ["audio", "image"], {}, {})["dominant"]
    'audio'
    """
    return {
        "loss": loss,
        "contributions": [round(share, 6) for share in shares],
        "dominant": modalities[shares.index(max(shares))],
        "share": last.get("share"),
        "radius": last.get("radius"),
        **({"method": dict(notes)} if notes else {}),
    }


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
