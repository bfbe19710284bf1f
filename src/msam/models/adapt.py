"""Any torch model as one of several modalities: what belongs to which, and what an absent modality looks like."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from msam import checks
from msam.models._calling import Call, called, logits_of, way
from msam.models.multimodal import of_rows
from msam.types import Output

Absent = float | Tensor | Callable[[Tensor], Tensor]
"""What stands in for an input that is absent: a number, a tensor `(...)` of one sample or `(1, ...)`, or what a function
makes of the input `(B, ...)`, of its shape."""


def adapt(
    model: nn.Module,
    modalities: Mapping[str, str | Sequence[str]],
    *,
    absent: Mapping[str, Absent] | None = None,
    encoders: Mapping[str, str] | None = None,
    call: Literal["keywords", "mapping", "positional"] | None = None,
    logits: str | None = None,
) -> "Adapted":
    """Return a model of yours in the form that `msam.diagnose`, `shapley.coalition_logits` and M-SAM take.

    It shares your model's parameters and changes nothing of it. Inputs are one flat mapping, as a collator of Hugging
    Face's makes it: what belongs to no modality is passed on as it is.

    Arguments:
        model: any module that takes tensors or a mapping of them, and returns logits `(N, C)`, a tuple that begins with
            them, or an object or mapping that holds them (`logits`, or `logits_per_image`).
        modalities: modality -> its inputs' names; their order is the order of the modalities.
        absent: input -> what stands in for it where its modality is absent; zeros where nothing is said. Zeros of an
            attention mask leave some models with nothing to attend to: `{"attention_mask": torch.ones_like}` keeps it.
        encoders: modality -> name of the submodule that encodes it, as `model.get_submodule` takes it; what it returns is
            the modality's feature, its parameters are the modality's. For all modalities or some; without one there is
            no probe and no sharpness of it.
        call: how the model is called: "keywords" `model(pixel_values=x, ...)`, "mapping" `model({...})`, or "positional",
            in the order of `modalities`; None: what its signature says.
        logits: the field of the output that holds the logits, where it is none of the above.

    Raises:
        ValueError: if a modality has no inputs, two have the same one, `absent` names an input or `encoders` a modality or
            a submodule that is not there, encoders have parameters in common, or the signature does not say how to call.

    >>> class Sum(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.a, self.b = nn.Linear(3, 2), nn.Linear(4, 2)
    ...     def forward(self, sound, picture):
    ...         return self.a(sound) + self.b(picture)
    >>> model = adapt(Sum(), {"audio": "sound", "image": "picture"}, encoders={"audio": "a", "image": "b"})
    >>> output = model({"sound": torch.zeros(5, 3), "picture": torch.zeros(5, 4)})
    >>> output.logits.shape, model.modalities, list(output.features)
    (torch.Size([5, 2]), ('audio', 'image'), ['audio', 'image'])
    """
    return Adapted(model, modalities, absent=absent, encoders=encoders, call=call, logits=logits)


class Adapted(nn.Module):
    """A model of another make as one of several modalities; see `adapt`, which makes it.

    Attributes:
        model: what is adapted.
        keys: modality -> names of its inputs.
        encoder_names: modality -> name of its encoder in `model`, for those that have one.
    """

    def __init__(
        self,
        model: nn.Module,
        modalities: Mapping[str, str | Sequence[str]],
        *,
        absent: Mapping[str, Absent] | None = None,
        encoders: Mapping[str, str] | None = None,
        call: Call | None = None,
        logits: str | None = None,
    ) -> None:
        super().__init__()
        self.keys = {name: (keys,) if isinstance(keys, str) else tuple(keys) for name, keys in modalities.items()}
        self._absent = dict(absent or {})
        self.encoder_names = dict(encoders or {})
        self._field = logits
        self._check()
        self.model = model
        self._call = way(model, self.inputs, call)
        self._check_encoders()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self.keys)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs of all modalities, in order."""
        return tuple(key for keys in self.keys.values() for key in keys)

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """Modality -> its encoder, for those that have one."""
        return {name: self.model.get_submodule(where) for name, where in self.encoder_names.items()}

    def forward(self, inputs: Mapping[str, Any], present: Tensor | None = None) -> Output:
        """Return logits and, of modalities with an encoder, features `(N, d_m)`.

        Of an encoder that returns several things the feature is `pooler_output`, else `last_hidden_state`, else the first;
        of a feature for each position `(N, L, d)` the mean over positions, of a map of channels `(N, d, H, W)` or
        `(N, d, T, H, W)` the mean of each channel.
        An encoder that runs several times, for two modalities or frame by frame, has no one feature and gives none.

        Arguments:
            inputs: name -> `(B, ...)`, those of all modalities and whatever else the model takes.
            present: `(B, M)` bool; where False, what is absent stands in for the modality's inputs.

        Raises:
            ValueError: if an input is missing, or logits cannot be found in what the model returns.
        """
        missing = [key for key in self.inputs if key not in inputs]
        if missing:
            raise ValueError(
                f"Input {missing[0]!r} is missing from the batch; found {sorted(inputs)}, expected {list(self.inputs)}."
            )
        given = dict(inputs) if present is None else self.where_present(inputs, present)
        with _heard(self.encoders) as features:
            returned = called(self.model, given, self._call, self.inputs)
        return Output(logits_of(returned, self._field), {n: features[n] for n in self.modalities if n in features})

    def with_only(self, inputs: Mapping[str, Any], present: Collection[str]) -> dict[str, Any]:
        """Return the inputs with every modality absent that is not among `present`.

        Raises:
            ValueError: if what is to stand in for an input has not its shape.
        """
        gone = {key for name, keys in self.keys.items() if name not in present for key in keys}
        return {key: self._stand_in(key, value) if key in gone else value for key, value in inputs.items()}

    def where_present(self, inputs: Mapping[str, Any], present: Tensor) -> dict[str, Any]:
        """Return the inputs with modalities absent from the samples that lack them.

        Raises:
            ValueError: if `present` is not `(B, M)` of bool, or what is to stand in for an input has not its shape.
        """
        first = inputs[self.inputs[0]]
        if present.shape != (len(first), len(self.keys)) or present.dtype != torch.bool:
            raise ValueError(
                f"`present` must be ({len(first)}, {len(self.keys)}) of bool, one column for each of "
                f"{list(self.modalities)}, received {tuple(present.shape)} of {present.dtype}."
            )
        given = dict(inputs)
        for column, keys in zip(present.T, self.keys.values(), strict=True):
            for key in keys:
                value = inputs[key]
                there = of_rows(column.unsqueeze(1), len(value)).view(-1, *[1] * (value.dim() - 1))
                given[key] = torch.where(there, value, self._stand_in(key, value))
        return given

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return every parameter in exactly one group `{"params", "role", "modality"}`; pass them to any optimizer.

        Role "encoder" for the parameters of the encoders that were named, "fusion" for all others.
        """
        groups: list[dict[str, Any]] = [
            {"params": list(module.parameters()), "role": "encoder", "modality": name}
            for name, module in self.encoders.items()
        ]
        known = {id(p) for group in groups for p in group["params"]}
        rest = [p for p in self.model.parameters() if id(p) not in known]
        groups.append({"params": rest, "role": "fusion", "modality": None})
        return [group for group in groups if group["params"]]

    def _stand_in(self, key: str, value: Tensor) -> Tensor:
        how = self._absent.get(key, 0.0)
        if isinstance(how, int | float):
            return torch.full_like(value, how)
        made = how(value) if callable(how) else how.to(value)
        try:
            return made.to(value.dtype).expand_as(value)
        except RuntimeError:
            raise ValueError(
                f"What `absent` has for {key!r} must fit an input of shape {tuple(value.shape)}, received "
                f"{tuple(made.shape)}."
            ) from None

    def _check(self) -> None:
        if not self.keys:
            raise ValueError("`modalities` must name at least one modality, received none.")
        owner: dict[str, str] = {}
        for name, keys in self.keys.items():
            if not keys:
                raise ValueError(f"Modality {name!r} must have at least one input, received none.")
            for key in keys:
                if key in owner:
                    raise ValueError(
                        f"Input {key!r} belongs to one modality, received {owner[key]!r} and {name!r}. Leave out what "
                        "belongs to several: it is passed on as it is."
                    )
                owner[key] = name
        for key in self._absent:
            checks.one_of("input in `absent`", key, self.inputs)
        for name in self.encoder_names:
            checks.one_of("modality in `encoders`", name, self.modalities)

    def _check_encoders(self) -> None:
        owner: dict[nn.Parameter, str] = {}
        for name, where in self.encoder_names.items():
            try:
                module = self.model.get_submodule(where)
            except AttributeError:
                known = [inner for inner, _ in self.model.named_modules() if inner]
                near = checks.did_you_mean(where, known)
                top = ", ".join(inner for inner in known if "." not in inner)
                raise ValueError(
                    f"The model has no submodule {where!r}, the encoder of {name!r}.{near} Its children: {top}."
                ) from None
            for parameter in module.parameters():
                if parameter in owner:
                    raise ValueError(
                        f"The encoders of {owner[parameter]!r} and {name!r} have parameters in common. Name submodules "
                        "that see one modality each."
                    )
                owner[parameter] = name


@contextmanager
def _heard(encoders: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Yield a mapping that fills with what encoders return inside the block, of those that run once."""
    features: dict[str, Tensor] = {}
    ran: set[str] = set()

    def listener(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hear(_module: nn.Module, _inputs: Any, returned: Any) -> None:
            if name in ran:
                features.pop(name, None)
            else:
                features[name] = feature_of(returned, name)
            ran.add(name)

        return hear

    hooks = [module.register_forward_hook(listener(name)) for name, module in encoders.items()]
    try:
        yield features
    finally:
        for hook in hooks:
            hook.remove()


def feature_of(returned: Any, name: str) -> Tensor:
    """Return the feature `(N, d)` in what the encoder of a modality returns.

    Raises:
        ValueError: if there is no tensor of two dimensions or more.

    >>> feature_of((torch.ones(2, 5, 3), None), "text").shape
    torch.Size([2, 3])
    >>> feature_of(torch.ones(2, 6, 4, 8, 8), "video").shape
    torch.Size([2, 6])
    """
    for field in ("pooler_output", "last_hidden_state"):
        found = getattr(returned, field, None)
        if isinstance(found, Tensor):
            returned = found
            break
    if isinstance(returned, Mapping):
        returned = next(iter(returned.values()), None)
    if isinstance(returned, tuple | list) and returned:
        returned = returned[0]
    if not isinstance(returned, Tensor) or returned.dim() < 2:
        shown = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        raise ValueError(
            f"The encoder of {name!r} must return a feature (N, d) or something that holds it, found {shown}. Name a "
            "submodule that does in `encoders`."
        )
    if returned.dim() == 2:
        return returned
    return returned.mean(1) if returned.dim() == 3 else returned.flatten(2).mean(2)
