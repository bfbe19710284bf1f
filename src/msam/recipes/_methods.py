"""What the methods' papers and codes say of their hyper-parameters on the paper's datasets.

Keys are a dataset, or "" for all; what stands under a dataset goes over what stands under "", and what stands under
`dataset-fusion` over both. What is not here is the method's default.
"""

from collections.abc import Mapping

from msam.recipes._values import Value

_MLB = "its configurations for CREMA-D, AVE and MOSEI"
_ELSEWHERE = "nothing published; as for CREMA-D"

METHODS: Mapping[str, Mapping[str, tuple[Value, ...]]] = {
    "agm": {
        "": (
            Value("method.alpha", 1.5, "ours", _ELSEWHERE),
            Value("method.cap", 10.0, "ours", "the code has none here: one batch could overflow"),
        ),
        "avmnist": (Value("method.alpha", 2.5, "code", "a maintainer's answer"),),
        "cremad": (
            Value("method.alpha", 1.5, "code", "a maintainer's answer"),
            Value("method.cap", 10.0, "code"),
        ),
        "urfunny-late": (Value("method.alpha", 4.0, "code", "a maintainer's answer"), Value("method.cap", 7.0, "code")),
        "urfunny-early": (
            Value("method.alpha", 6.0, "code", "a maintainer's answer"),
            Value("method.cap", 7.0, "code"),
        ),
    },
    "cggm": {
        "": (
            Value("method.rho", 1.3, "ours", "nothing published; most of the code's datasets"),
            Value("method.direction_weight", 0.1, "ours", "nothing published; the code has 0.05 to 0.2 elsewhere"),
        ),
    },
    "gblending": {"": (Value("method.strategy", "offline", "paper", "one estimate over the whole run"),)},
    "mlb": {
        "": (
            Value("method.alpha", 0.8, "ours", "nothing published; as for CREMA-D and AVE"),
            Value("method.beta_max", 2.0, "code", "no configuration sets it"),
        ),
        "cremad": (Value("method.alpha", 0.8, "code", _MLB),),
        "ave": (Value("method.alpha", 0.8, "code", _MLB),),
    },
    "mmpareto": {"": (Value("method.gamma", 1.5, "code"),)},
    "modality_dropout": {"": (Value("method.p", 0.3, "ours", "nothing published for these datasets"),)},
    "mses": {
        "": (Value("method.patience", 30, "ours", "nothing published"),),
        "avmnist": (Value("method.patience", 10, "code", "AGM's"),),
        "cremad": (Value("method.patience", 80, "code", "AGM's"),),
        "urfunny": (Value("method.patience", 30, "code", "AGM's"),),
    },
    "mslr": {
        "": (Value("method.window", 5, "code", "AGM's"),),
        "avmnist": (Value("method.rates", (1.3, 0.7), "code", "AGM's; audio, image"),),
        "cremad": (Value("method.rates", (0.9, 1.1), "code", "AGM's; audio, video"),),
        "urfunny": (Value("method.rates", (0.9, 1.4, 0.7), "code", "AGM's; audio, vision, text"),),
    },
    "ogm_ge": {
        "": (
            Value("method.alpha", 0.8, "ours", _ELSEWHERE),
            Value("method.last_epoch", 50, "code", "of 100 epochs"),
        ),
        "cremad": (Value("method.alpha", 0.8, "code", "its README"),),
    },
    "pmr": {
        "": (
            Value("method.alpha", 1.0, "paper", "1 or 2; the code's runs 0.5 to 3"),
            Value("method.mu", 0.01, "paper", "0.01 or 0.001"),
            Value("method.momentum", 0.2, "code", "its default; its runs have 0"),
        ),
        "urfunny": (
            Value("method.alpha", 1.0, "ours", "nothing published"),
            Value("method.mu", 0.01, "ours", "nothing published"),
        ),
    },
    "reconboost": {
        "": (
            Value("method.w1", 5.0, "ours", _ELSEWHERE),
            Value("method.w2", 1.0, "ours", _ELSEWHERE),
            Value("method.alpha", 0.5, "code"),
            Value("method.boost_epochs", 4, "code"),
            Value("method.rectify_epochs", 4, "code"),
        ),
        "cremad": (Value("method.w1", 5.0, "code"), Value("method.w2", 1.0, "code")),
        "ave": (Value("method.w1", 4.0, "code"), Value("method.w2", 1.0, "code")),
        "ave_features": (
            Value("method.w1", 4.0, "ours", "as for clips"),
            Value("method.w2", 1.0, "ours", "as for clips"),
        ),
        "urfunny": (
            Value("method.w1", 1.0, "ours", "the code's for sentiment"),
            Value("method.w2", 0.25, "ours", "the code's for sentiment"),
        ),
    },
    "umt": {"": (Value("method.weight", 10.0, "ours", "a public re-implementation's; tune it, 1 to 50"),)},
    "uniform": {"": (Value("method.weight", 1.0, "code", "MMPareto's baseline"),)},
}


def values_of(method: str, dataset: str, fusion: str) -> list[Value]:
    """Return what is set of a method on a dataset with "late" or "early" fusion.

    >>> [v.value for v in values_of("agm", "urfunny", "early")]
    [6.0, 7.0]
    """
    layers = METHODS.get(method, {})
    found: dict[str, Value] = {}
    for key in ("", dataset, f"{dataset}-{fusion}"):
        found |= {value.key: value for value in layers.get(key, ())}
    return list(found.values())
