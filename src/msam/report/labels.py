"""What rows and blocks are called: names from the configuration, settings only where names do not suffice."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

PRETTY = {
    "ensemble": "Ensemble",
    "gblending": "G-Blending",
    "joint": "Joint",
    "mmpareto": "MMPareto",
    "modality_dropout": "Modality dropout",
    "ogm_ge": "OGM-GE",
    "reconboost": "ReconBoost",
    "unimodal": "Unimodal",
    "uniform": "Uniform",
    "fisher_sam": "Fisher SAM",
    "fsam": "F-SAM",
    "imbsam": "ImbSAM",
    "looksam": "LookSAM",
    "msam": "M-SAM",
}
"""Names that the general rule (capitals: `agm` -> AGM) would spoil."""


PRINTED = {"scope": "all", "modality": "dominant", "weighting": "batch", "loss": "weighted"}
"""M-SAM's options as the paper prints the algorithm; with others it is another algorithm and has a name of its own."""


def pretty(name: str) -> str:
    """Return a method's or rule's name as it is printed; a dotted name keeps its last part.

    >>> pretty("msam"), pretty("agm"), pretty("my_lab.my_rule")
    ('M-SAM', 'AGM', 'my_rule')
    """
    if "." in name:
        return name.rpartition(".")[2]
    return PRETTY.get(name, name.upper().replace("_", "-"))


def of_run(config: Mapping[str, Any]) -> str:
    """Return the name of a configuration's row: its method and its sharpness rule.

    >>> of_run({"method": {"name": "joint"}, "sharpness": {"name": "msam", "rho": 0.3}})
    'M-SAM'
    >>> of_run({"method": {"name": "ogm_ge"}, "sharpness": {"name": "sam"}})
    'OGM-GE + SAM'
    >>> of_run({"method": {"name": "pmr", "extend": True}, "sharpness": None})
    'PMR (extended)'
    >>> of_run({"method": {"name": "unimodal", "modality": "audio"}, "sharpness": None})
    'Unimodal audio'
    >>> of_run({"method": {"name": "joint"}, "sharpness": {"name": "msam", "rho": 0.3, "share": 0.7}})
    'M-SAM (constant share)'
    >>> of_run({"method": {"name": "joint"}, "sharpness": {"name": "msam", "scope": "all", "loss": "response"}})
    'M-SAM (loss=response)'
    """
    method, sharpness = config["method"], config.get("sharpness")
    name = pretty(method["name"])
    if method["name"] == "unimodal" and method.get("modality"):
        name += f" {method['modality']}"
    if method.get("extend"):
        name += " (extended)"
    if not sharpness:
        return name
    rule = pretty(sharpness["name"])
    if sharpness["name"] == "msam" and (told := _not_as_printed(sharpness)):
        rule += f" ({', '.join(told)})"
    return rule if method["name"] == "joint" else f"{name} + {rule}"


def distinct(labels: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return `labels`; where several are equal, with the settings appended in which their configurations differ.

    >>> distinct(["SAM", "SAM"], [{"sharpness": {"rho": 0.1}, "lr": 1}, {"sharpness": {"rho": 0.2}, "lr": 1}])
    ['SAM (rho=0.1)', 'SAM (rho=0.2)']
    """
    flat = [flatten(config) for config in configs]
    result = list(labels)
    for label in {label for label in labels if labels.count(label) > 1}:
        members = [i for i, other in enumerate(labels) if other == label]
        keys = _differing([flat[i] for i in members])
        for i in members:
            settings = [f"{_short(key, keys)}={spell(flat[i][key])}" for key in keys if key in flat[i]]
            result[i] = f"{label} ({', '.join(settings)})" if settings else label
    return result


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested configuration as one level of dotted keys.

    >>> flatten({"optimizer": {"name": "sgd", "lr": 0.1}, "seed": 0})
    {'optimizer.name': 'sgd', 'optimizer.lr': 0.1, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def ends(paths: Sequence[str]) -> list[str]:
    """Return the ends of paths, as short as they can be and differ; "default" for none.

    >>> ends(["/home/a/cremad", "/home/b/cremad"]), ends(["", "/data/ave"])
    (['a/cremad', 'b/cremad'], ['default', 'ave'])
    """
    parts = [PurePath(path).parts for path in paths]
    lengths = range(1, max(map(len, parts), default=0) + 1)
    found = (["/".join(part[-length:]) or "default" for part in parts] for length in lengths)
    return next((ends_ for ends_ in found if len(set(ends_)) == len(ends_)), list(paths))


def slug(text: str) -> str:
    """Return `text` as part of a file name.

    >>> slug("AV digits (keep=0.25), late fusion")
    'av-digits-keep-0.25-late-fusion'
    """
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "block"


def spell(value: Any) -> str:
    """Return a setting as it is printed.

    >>> spell(True), spell(0.10), spell("late")
    ('true', '0.1', 'late')
    """
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _not_as_printed(rule: Mapping[str, Any]) -> list[str]:
    constant = ["constant share"] if rule.get("share", "contribution") != "contribution" else []
    return constant + [f"{key}={rule[key]}" for key, usual in PRINTED.items() if rule.get(key, usual) != usual]


def _differing(flat: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values differ; the settings of a part are compared only where the part has the same name."""
    keys = list(dict.fromkeys(key for config in flat for key in config))
    found = []
    for key in keys:
        part = f"{key.rpartition('.')[0]}.name"
        values: dict[str, set[str]] = {}
        for config in flat:
            values.setdefault("" if part == key else repr(config.get(part)), set()).add(repr(config.get(key)))
        if any(len(different) > 1 for different in values.values()):
            found.append(key)
    return found


def _short(key: str, keys: Sequence[str]) -> str:
    key_of = {k: k.removesuffix(".name").rpartition(".")[2] for k in keys}
    return key_of[key] if list(key_of.values()).count(key_of[key]) == 1 else key
