"""The values of the paper's recipes, each with its source; the page docs/recipes.md is written from them."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Source = Literal["paper", "code", "ours"]


class Value(NamedTuple):
    """One value of a recipe.

    Attributes:
        key: of the configuration, dotted.
        value: what it is set to.
        source: "paper", of M-SAM or of the method; "code", the official code of the method (for what methods share: of AGM,
            which the paper says it follows) or what its maintainers answered; "ours" where neither says.
        note: where it stands, or why it is so.
    """

    key: str
    value: Any
    source: Source
    note: str = ""


class Setting(NamedTuple):
    """A dataset with what is said of it.

    Attributes:
        about: what it is, for the list.
        modalities: names, in order.
        values: of the dataset.
        fusions: "late" and "early" -> values of the fusion.
    """

    about: str
    modalities: tuple[str, ...]
    values: tuple[Value, ...]
    fusions: Mapping[str, tuple[Value, ...]]


COMMON: tuple[Value, ...] = (
    Value("optimizer.name", "sgd", "paper", "4.2"),
    Value("optimizer.lr", 1e-3, "paper", "4.2; AGM's README has 1e-4 for AV-MNIST"),
    Value("optimizer.momentum", 0.9, "paper", "4.2"),
    Value("optimizer.weight_decay", 1e-4, "paper", "4.2"),
    Value("schedule.name", "step_every", "paper", "4.2"),
    Value("schedule.period", 70, "paper", "epochs, 4.2; 3.6 says iterations"),
    Value("schedule.gamma", 0.1, "paper", "4.2"),
    Value(
        "batch_size", 64, "code", "AGM's and OGM-GE's READMEs; the paper does not say; AGM's code has 16 for UR-FUNNY"
    ),
    Value("epochs", 100, "ours", "as OGM-GE; the paper does not say, AGM's maintainers had 800 to 1500"),
    Value("contributions", "probability", "ours", "Eq. 20 does not say how logits become a number"),
    Value("absent", "feature", "ours", "the paper pads features or inputs; AGM's code pads inputs"),
    Value("accelerator", "auto", "ours", "a GPU where there is one"),
    Value("record_every", 20, "ours", "step lines in the record"),
)

LATE = (Value("fusion.name", "late", "code", "a sum of heads; AGM's code concatenates for AGM alone"),)
MAXOUT = (
    Value("fusion.name", "maxout", "paper", "4.2; its sizes are those of AGM's code"),
    Value("fusion.hidden", (2048, 1024), "code"),
    Value("fusion.dropout", 0.3, "code"),
    Value("fusion.batch_norm", True, "code"),
)

DATASETS: Mapping[str, Setting] = {
    "avmnist": Setting(
        "AV-MNIST: spectrograms and pictures of digits",
        ("audio", "image"),
        (
            Value("data.name", "avmnist", "paper"),
            Value(
                "data.split", "multibench", "ours", "the last 5000 of train are held out; AGM's code selects on test"
            ),
        ),
        {"late": LATE, "early": MAXOUT},
    ),
    "cremad": Setting(
        "CREMA-D: spoken emotions, sound and one frame",
        ("audio", "video"),
        (
            Value("data.name", "cremad", "paper"),
            Value("data.spectrogram", "257x299", "paper", "4.2; AGM's code computes 257x188"),
            Value("data.frames", 1, "code", "OGM-GE's and AGM's; 4.2 says 1 frame per minute"),
        ),
        {"late": LATE, "early": MAXOUT},
    ),
    "urfunny": Setting(
        "UR-FUNNY: is it funny? from voice, face and words",
        ("audio", "vision", "text"),
        (Value("data.name", "urfunny", "paper"),),
        {"late": LATE, "early": MAXOUT},
    ),
    "ave": Setting(
        "AVE: one of 28 events per clip, spectrogram and frames",
        ("audio", "video"),
        (
            Value("data.name", "ave", "paper"),
            Value("data.protocol", "clips", "ours", "the paper does not say; as in OGM-GE, PMR and ReconBoost"),
            Value("data.frames", 3, "ours", "the paper does not say; as in OGM-GE and ReconBoost, PMR has 4"),
        ),
        {"late": LATE, "early": MAXOUT},
    ),
    "ave_features": Setting(
        "AVE: an event or none in each of ten seconds, from features of frozen nets",
        ("audio", "video"),
        (
            Value("data.name", "ave", "paper"),
            Value("data.protocol", "features", "ours", "the paper does not say; its numbers fit AGM's features"),
        ),
        {
            "late": (Value("fusion.name", "late", "ours", "AGM's code has one fusion for AVE"),),
            "early": (
                Value("fusion.name", "psp", "code", "Zhou et al. 2021; what of it is our reading says docs/models.md"),
                Value("fusion.threshold", 0.099, "code"),
                Value("fusion.dropout", 0.1, "code"),
            ),
        },
    ),
}

SHARPNESS: Mapping[str, tuple[Value, ...]] = {
    "sam": (
        Value("sharpness.name", "sam", "paper"),
        Value("sharpness.rho", 0.05, "ours", "the paper gives none; the default of SAM's paper"),
    ),
    "msam": (
        Value("sharpness.name", "msam", "paper"),
        Value("sharpness.rho", 0.05, "ours", "the paper gives none; tune it, 0.01 to 0.2"),
    ),
}
