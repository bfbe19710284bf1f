"""The two kinds of models that are diagnosed, behind one face: ours, and those that are adapted."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msam import checks, shapley
from msam.models import Adapted, MultimodalModel
from msam.models.fusion import pooled
from msam.types import Batch

Coalitions = Sequence[tuple[int, ...]]


class View(ABC):
    """A model as a diagnosis sees it.

    Attributes:
        model: the model.
        absent: what an absent modality is, "feature" or "input".
    """

    model: nn.Module
    absent: str

    @property
    @abstractmethod
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""

    @property
    @abstractmethod
    def encoded(self) -> tuple[str, ...]:
        """Names of the modalities that have an encoder."""

    @abstractmethod
    def keys(self, modality: str) -> tuple[str, ...]:
        """Return the names of a modality's inputs."""

    @abstractmethod
    def features(self, batch: Batch) -> dict[str, Tensor]:
        """Return modality -> feature `(N, d)`, of those that have an encoder."""

    @abstractmethod
    def coalitions(self, batch: Batch, only: Coalitions) -> Tensor:
        """Return the logits `(len(only), N, C)` of coalitions."""

    @abstractmethod
    def heads(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return modality -> logits of its own head or part of the logits; nothing where there is none."""

    @abstractmethod
    def disturbed(self, batch: Batch, modality: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits `(N, C)` where the inputs of one modality are others."""

    @abstractmethod
    def alone(self, model: Any, batch: Batch, modality: str) -> Tensor:
        """Return the feature `(N, d)` of one modality, with its graph, by a copy of the model."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all inputs that belong to a modality, in order."""
        return tuple(key for name in self.modalities for key in self.keys(name))

    def encoder_parameters(self, modality: str) -> list[nn.Parameter]:
        """Return the parameters of a modality's encoder."""
        groups: Any = self.model.parameter_groups()  # type: ignore[operator]
        return [p for g in groups if g["role"] == "encoder" and g["modality"] == modality for p in g["params"]]

    def device(self) -> torch.device:
        """Return where the model is."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))


class Own(View):
    """A `MultimodalModel`; of the last batch the features are kept, which several questions need."""

    def __init__(self, model: MultimodalModel, absent: str) -> None:
        self.model: MultimodalModel = model
        self.absent = absent
        self._last: tuple[Batch, dict[str, Tensor]] | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.model.modalities

    @property
    def encoded(self) -> tuple[str, ...]:
        return self.model.modalities

    def keys(self, modality: str) -> tuple[str, ...]:
        return (modality,)

    def features(self, batch: Batch) -> dict[str, Tensor]:
        return {name: pooled(feature) for name, feature in self._encoded(batch).items()}

    def coalitions(self, batch: Batch, only: Coalitions) -> Tensor:
        if self.absent == "feature":
            return shapley.coalition_logits(self.model, self._encoded(batch), only=only)
        return shapley.coalition_logits(self.model, batch.inputs, absent="input", only=only)

    def heads(self, batch: Batch) -> Mapping[str, Tensor]:
        return self.model.head_logits(self._encoded(batch)) if self.model.has_heads else {}

    def alone(self, model: Any, batch: Batch, modality: str) -> Tensor:
        return pooled(model.encode(batch.inputs, only=[modality])[modality])

    def disturbed(self, batch: Batch, modality: str, inputs: Mapping[str, Tensor]) -> Tensor:
        again = self.model.encode(inputs, only=[modality], present=batch.present)
        return self.model.fuse({**self._encoded(batch), **again})

    def _encoded(self, batch: Batch) -> dict[str, Tensor]:
        if self._last is None or self._last[0] is not batch:
            self._last = (batch, self.model.encode(batch.inputs, present=batch.present))
        return self._last[1]


class Other(View):
    """An adapted model: coalitions are whole passes, what is absent is so at the inputs."""

    absent = "input"

    def __init__(self, model: Adapted) -> None:
        self.model: Adapted = model

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.model.modalities

    @property
    def encoded(self) -> tuple[str, ...]:
        return tuple(name for name in self.modalities if name in self.model.encoder_names)

    def keys(self, modality: str) -> tuple[str, ...]:
        return self.model.keys[modality]

    def features(self, batch: Batch) -> dict[str, Tensor]:
        return self.model(batch.inputs, batch.present).features if self.encoded else {}

    def coalitions(self, batch: Batch, only: Coalitions) -> Tensor:
        inputs = batch.inputs if batch.present is None else self.model.where_present(batch.inputs, batch.present)
        return shapley.coalition_logits(self.model, inputs, absent="input", only=only)

    def heads(self, batch: Batch) -> Mapping[str, Tensor]:
        return {}

    def disturbed(self, batch: Batch, modality: str, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.model(inputs, batch.present).logits

    def alone(self, model: Any, batch: Batch, modality: str) -> Tensor:
        found: Tensor = model(model.with_only(batch.inputs, [modality]), batch.present).features[modality]
        return found


def view(model: Any, absent: str | None) -> View:
    """Return the face of a model.

    Raises:
        ValueError: if it is neither a `MultimodalModel` nor adapted, or `absent` is a word that does not go with it.
    """
    if isinstance(model, MultimodalModel):
        return Own(model, checks.one_of("absent", absent or "feature", ("feature", "input")))
    if isinstance(model, Adapted):
        if absent not in (None, "input"):
            raise ValueError(
                f"An adapted model is asked with inputs absent: `absent` must be 'input', received {absent!r}."
            )
        return Other(model)
    raise ValueError(
        f"The model must be a MultimodalModel or adapted, received {type(model).__name__}. Say which inputs belong "
        "to which modality: msam.adapt(model, modalities={'image': ['pixel_values'], 'text': ['input_ids']})."
    )


def named_coalition(members: Sequence[int], modalities: Sequence[str]) -> str:
    """Return words for what is absent of a coalition.

    >>> named_coalition((0,), ("audio", "image")), named_coalition((0, 1), ("audio", "image"))
    ("With 'image' absent", 'With everything there')
    """
    gone = [repr(name) for m, name in enumerate(modalities) if m not in members]
    return f"With {', '.join(gone)} absent" if gone else "With everything there"
