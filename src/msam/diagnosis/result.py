"""What a diagnosis finds, as plain numbers."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msam._files import write_whole

FORMAT = 1


@dataclass(frozen=True)
class Estimate:
    """A number over the samples, with its 95 % bootstrap interval (BCa), and the same within each class.

    Attributes:
        value: over all samples; NaN where no sample counts.
        low: lower end; NaN where fewer than two samples count.
        high: upper end.
        error: standard error that comes from drawing coalitions, on top of the interval; 0 where all were asked for.
        by_class: the same within every class (of labels: over the rows that have the label), in their order; empty within a
            class, and where there are none.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    error: float = 0.0
    by_class: tuple["Estimate", ...] = ()

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Modality:
    """What is found of one modality. Accuracies and shares are fractions, likelihoods nats per sample.

    What is called accuracy is the measure of the task: the accuracy of classes, or of labels, or R². R² of some of the
    samples is held to the variance of all.

    Attributes:
        accuracy: its Shapley value of the accuracy above that of the model with nothing there; may be negative.
        accuracy_share: the share of that, negative ones set to 0; uniform where nothing is left.
        likelihood: its Shapley value of the mean log-likelihood of the target, above that with nothing there.
        likelihood_share: the share of that.
        shapley: accuracy of the largest of its Shapley logits; samples that have the modality count, here and below.
        zeroed: accuracy of the model with all others absent.
        head: accuracy of its own head or its part of the logits; None where there is none.
        in_model: the best of the three, its accuracy in the model.
        in_model_kind: which one that is.
        probe: accuracy of a linear probe on the features of its encoder as it is; None without training data or encoder.
        unimodal: accuracy of its encoder trained on by itself with a linear head; None where that was not asked for.
        gap: under-training: what it could reach, `unimodal` if there is one, else `probe`, less `in_model`.
        fusion_gap: `probe - in_model`, what its features tell that the model does not use.
        encoder_gap: `unimodal - probe`, what its encoder has not learned.
        fusion_lag: by how much its `fusion_gap` is beyond the smallest of the others', or beyond 0.
        encoder_lag: by how much its `encoder_gap` is.
        dominance: share of samples in which its contribution to the probability of the target is the largest (of several
            labels or numbers, to their geometric mean).
        batch_dominance: share of batches; its interval is over batches.
        missing_accuracy: accuracy that is lost where it is absent.
        missing_likelihood: log-likelihood that is lost where it is absent.
        noisy_accuracy: accuracy that is lost where its inputs are disturbed.
        noisy_likelihood: log-likelihood that is lost so.
        noise: how: "gaussian", of so many standard deviations, or "swapped": those of another sample (whole numbers).
        sharpness: `max L(theta + e) - L(theta)`, e within its encoder, `||e|| <= rho`, by SAM's one step of ascent.
        eigenvalue: the largest of the Hessian's block of its encoder; None where it was not found.
    """

    accuracy: Estimate
    accuracy_share: Estimate
    likelihood: Estimate
    likelihood_share: Estimate
    shapley: Estimate
    zeroed: Estimate
    head: Estimate | None
    in_model: Estimate
    in_model_kind: str
    probe: Estimate | None
    unimodal: Estimate | None
    gap: Estimate | None
    fusion_gap: Estimate | None
    encoder_gap: Estimate | None
    fusion_lag: Estimate | None
    encoder_lag: Estimate | None
    dominance: Estimate
    batch_dominance: Estimate
    missing_accuracy: Estimate
    missing_likelihood: Estimate
    noisy_accuracy: Estimate
    noisy_likelihood: Estimate
    noise: str
    sharpness: Estimate | None = None
    eigenvalue: float | None = None


@dataclass(frozen=True)
class Pair:
    """The interaction of two modalities: below 0 they tell the same (redundancy), above 0 more together (synergy).

    Attributes:
        modalities: which two.
        accuracy: Shapley interaction of the accuracy.
        likelihood: of the mean log-likelihood, nats.
        offset: what of `accuracy`, in a regression, is of answers that are off on average, as they are where the constant
            parts of two modalities cancel only together: it says nothing of samples. 0 in other tasks.
    """

    modalities: tuple[str, str]
    accuracy: Estimate
    likelihood: Estimate
    offset: float = 0.0


@dataclass(frozen=True)
class Advice:
    """Something to try.

    Attributes:
        rule: the rule that says so, a name in `msam.diagnosis.RULES`.
        modality: of whom; None: of all.
        finding: what was found, with its numbers.
        remedy: what to try.
    """

    rule: str
    modality: str | None
    finding: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.finding} {self.remedy}"


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` finds of a model on the samples of a loader.

    Attributes:
        task: "single-label", "multi-label" or "regression".
        measure: what is called accuracy, in words: "accuracy", "label accuracy" or "R²".
        modalities: modality -> what is found of it, in order.
        pairs: interactions of every two modalities.
        accuracy: of the model with everything there.
        likelihood: mean log-likelihood of the target, nats; of labels and numbers a mean over them. Of numbers by a normal
            distribution around the answer with the variance of the targets, its constant left out.
        nothing: accuracy of the model with every modality absent, from which contributions are counted.
        chance: accuracy of the best answer that looks at nothing: the share of the most frequent class; of the more
            frequent answer to each label; 0, the R² of the mean.
        samples: how many.
        classes: names of the classes or labels, or their numbers; empty in a regression.
        counts: rows of each.
        settings: what was asked for: what absent means, seeds, resamples, noise, rho, coalitions.
        cost: what it took, in words.
        notes: what could not be measured, and why.
        advice: what to try.
    """

    task: str
    measure: str
    modalities: Mapping[str, Modality]
    pairs: tuple[Pair, ...]
    accuracy: Estimate
    likelihood: Estimate
    nothing: Estimate
    chance: float
    samples: int
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: str = ""
    notes: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON takes them: NaN as None."""
        return {"format": FORMAT, **_plain(dataclasses.asdict(self))}

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write it as JSON, whole or not at all, and return where.

        Raises:
            OSError: if it cannot be written.
        """
        write_whole(Path(path), json.dumps(self.to_dict(), indent=1).encode())
        return Path(path)

    def __str__(self) -> str:
        """A few lines: who contributes what, and what to try."""
        lines = [f"{self.measure} {self.accuracy} on {self.samples} samples"]
        for name, found in self.modalities.items():
            parts = [f"share {found.likelihood_share}", f"alone in the model {found.in_model}"]
            parts += [f"could reach {found.unimodal or found.probe}"] if found.gap else []
            lines.append(f"{name}: {', '.join(parts)}")
        lines += [f"try: {advice}" for advice in self.advice]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
