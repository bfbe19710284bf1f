"""Records for tests of loggers: lines as runs write them, and runs."""

from pathlib import Path

from msam.record import Writer

EAR = "tests.loggers.ear"
CONFIG = {
    "data": {"name": "avdigits", "seed": 0, "keep": 0.4, "root": None},
    "fusion": {"name": "late"},
    "method": {"name": "joint"},
    "sharpness": {"name": "msam", "rho": 0.1, "compensate": False},
    "optimizer": {"name": "sgd", "lr": 0.05},
    "encoders": {},
    "seed": 3,
    "epochs": 2,
}


def header(run="run", started="2026-03-04T05:06:07+00:00", **config):
    data = {"name": "avdigits", "fingerprint": "66c8", "sizes": {"train": 4}}
    about = {"data": data, "versions": {"msam": "0.1.0"}, "commit": "5aea07b"}
    return (
        {"kind": "header", "run": run, "config": CONFIG | config, "modalities": ["audio", "image"]}
        | about
        | ({"started": started} if started else {})
    )


def step(number, epoch=1, **more):
    share = 0.5 + number / 100
    own = {"loss": 1 / number, "contributions": [share, 1 - share], "dominant": "audio", "share": share, "radius": 0.1}
    return {"kind": "step", "step": number, "epoch": epoch} | own | more


def epoch(number, last, **more):
    def measures(accuracy):
        alone = {"head": None, "shapley": accuracy - 0.1, "contribution": 0.25, "dominance": 0.5}
        return {
            "accuracy": accuracy,
            "nll": 1 - accuracy,
            "modalities": {"audio": alone, "image": alone},
            "imbalance": 0.5,
        }

    splits = {"train": measures(0.9), "valid": measures(0.8 + number / 100), "test": measures(0.7)}
    return {
        "kind": "epoch",
        "epoch": number,
        "step": last,
        "loss": 0.5,
        "lr": 0.05,
        **splits,
        "seconds": 10.0 * number,
    } | more


def lines(run="run", steps=3, epochs=2, status="finished", **more):
    """Return the lines of a run; without its end if `status` is None."""
    made = [header(run, **more)]
    for number in range(1, epochs + 1):
        first = (number - 1) * steps
        made += [step(first + k, number) for k in range(1, steps + 1)]
        made.append(epoch(number, first + steps))
    end = {"kind": "end", "status": status, "steps": epochs * steps, "epochs": epochs, "seconds": 10.0 * epochs + 1}
    return [*made, *([end | {"passes_per_step": 2.0, "weights": "d55a"}] if status else [])]


def written(path: Path, made) -> Path:
    """Write lines as a record."""
    with Writer(path) as writer:
        for line in made:
            writer.write(line["kind"], **{key: value for key, value in line.items() if key != "kind"})
    return path
