"""The configuration of a run: one model, from flags, TOML and Python alike.

Data, fusion, method, sharpness, optimizer and schedule are parts with a name and options of their own. The options
*are* the part's signature (dataclass fields, keyword-only parameters), so a new method brings its flags along.
"""

import hashlib
import inspect
import json
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import docstring_parser
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticCustomError

from msam import checks, data, methods, models, sharpness
from msam.checks import Range, Search
from msam.shapley import Value
from msam.train.optimizers import OPTIMIZERS, SCHEDULES
from msam.train.probes import Chosen

Part = dict[str, Any]
Checked = TypeVar("Checked", bound=BaseModel)


def _pairs(value: Any) -> Any:
    """Let a mapping of words also be written `a=b,c=d`, as on the command line."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in value.split(",") if pair]
    if not all(key and word for key, _, word in pairs):
        raise PydanticCustomError("pairs", "modality=name pairs, as in audio=mlp,text=mlp")
    return {key.strip(): word.strip() for key, _, word in pairs}


class RunConfig(BaseModel):
    """Everything that decides a run's result. Parts are `{"name": ..., **options}`, complete with defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: Part
    fusion: Part
    method: Part
    sharpness: Part | None
    optimizer: Part
    schedule: Part
    seed: Annotated[int, Range(ge=0)] = Field(0, description="of weights, order of samples and dropout")
    epochs: Annotated[int, Range(ge=1)] = Field(20, description="passes over the training data")
    batch_size: Annotated[int, Range(ge=1)] = Field(64, description="samples per step")
    contributions: Value = Field("probability", description="what a modality's contribution is a share of")
    absent: Literal["feature", "input"] = Field("feature", description="what is set to zero for an absent modality")
    record_every: Annotated[int, Range(ge=0)] = Field(
        1, description="steps between step lines in the record, 0: none, epoch lines hold the means of their steps"
    )
    checkpoint_every: Annotated[int, Range(ge=0)] = Field(0, description="steps between checkpoints, 0: one per epoch")
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"] = Field(
        "32-true", description="of numbers, as Lightning Fabric names it"
    )
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field("cpu", description="where to train")
    encoders: Annotated[dict[str, str], BeforeValidator(_pairs)] = Field(
        {}, description="modality=name,..., encoders in place of the dataset's"
    )
    threads: Annotated[int, Range(ge=0)] = Field(0, description="CPU threads, 0: torch's own choice")
    probes: Chosen = Field((), description="measured beside, any of gradients,curvature,landscape")

    def chosen(self) -> dict[str, Any]:
        """Return what was chosen: the names of the parts, the seed, and every value that is not its default.

        An option that a later version adds does not change it, nor does where the data lie.
        """
        plain = {key: value for key, value in self if key not in KINDS}
        fields = type(self).model_fields
        values = {key: value for key, value in plain.items() if key == "seed" or value != fields[key].default}
        return values | {kind: _chosen(kind, getattr(self, kind)) for kind in KINDS}

    def decisive(self) -> dict[str, Any]:
        """Return the complete configuration as plain values, without where the data lie."""
        plain = self.model_dump()
        for kind in KINDS:
            plain[kind] = plain[kind] and {k: v for k, v in plain[kind].items() if k not in KINDS[kind].places}
        return plain

    def run_name(self) -> str:
        """Return a name for the run's folder: the parts, the seed, and a short hash of what was chosen."""
        rule = self.sharpness["name"] if self.sharpness else "none"
        parts = [self.data["name"], self.fusion["name"], self.method["name"], rule, f"seed{self.seed}"]
        digest = hashlib.sha256(json.dumps(self.chosen(), sort_keys=True).encode()).hexdigest()
        return "-".join([*parts, digest[:8]]).replace("/", "_")


class Kind(NamedTuple):
    """A kind of part.

    Attributes:
        names: the parts of this kind that ship.
        find: from a name to the function or class whose signature holds the options.
        default: the name taken when none is given.
        open: whether a dotted name may bring a part of one's own.
        given: parameters that the loop gives, not the configuration.
        places: options that say where something lies; what a run is does not depend on them.
        common: a TypedDict of the options that all parts of this kind take as keywords beside those of their own; their
            defaults are the part's `defaults`.
    """

    names: Callable[[], list[str]]
    find: Callable[[str], Callable[..., Any]]
    default: str
    open: bool
    given: frozenset[str] = frozenset()
    common: Any = None
    places: frozenset[str] = frozenset()


def _among(kind: str, options: Mapping[str, Callable[..., Any]]) -> Callable[[str], Callable[..., Any]]:
    return lambda name: options[checks.one_of(kind, name, options)]


KINDS: Mapping[str, Kind] = {
    "data": Kind(data.names, data.load, "avdigits", True, places=frozenset({"root"})),
    "fusion": Kind(
        lambda: sorted(models.FUSIONS),
        _among("fusion", models.FUSIONS),
        "late",
        False,
        frozenset({"dims", "num_classes"}),
    ),
    "method": Kind(methods.names, methods.load, "joint", True),
    "sharpness": Kind(
        sharpness.names,
        sharpness.load,
        "none",
        True,
        frozenset({"optimizer", "model", "sync", "scaler"}),
        sharpness.Common,
    ),
    "optimizer": Kind(lambda: sorted(OPTIMIZERS), _among("optimizer", OPTIMIZERS), "sgd", False, frozenset({"groups"})),
    "schedule": Kind(lambda: sorted(SCHEDULES), _among("schedule", SCHEDULES), "step", False, frozenset({"epochs"})),
}


class Option(NamedTuple):
    """One option of a part: type, default, range and search (None where there is none), what its docstring says of it."""

    type: Any
    default: Any
    range: Range | None
    help: str
    search: Search | None = None


def options(kind: str, name: str) -> dict[str, Option]:
    """Return the options of a part, from its signature.

    Raises:
        ValueError: if there is no such part, with the nearest known name.

    >>> options("sharpness", "msam")["rho"].range
    Range(ge=0, gt=None, le=None, lt=None)
    """
    if kind == "sharpness" and name == "none":
        return {}
    part = KINDS[kind]
    found = part.find(name)
    described = signature(found, part.given)
    any_more = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(found).parameters.values())
    if part.common and any_more:
        defaults: Mapping[str, Any] = getattr(found, "defaults", {})
        shared = {key: value for key, value in defaults.items() if key not in {*part.given, *described}}
        described |= _described(shared, typing.get_type_hints(part.common, include_extras=True), part.common)
    return described


def signature(found: Callable[..., Any], given: frozenset[str] = frozenset()) -> dict[str, Option]:
    """Return the options that a function or class takes by name, but for those that are given to it."""
    hints = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found, include_extras=True)
    parameters = inspect.signature(found).parameters
    own = {
        k: p.default for k, p in parameters.items() if k not in given and p.kind is not inspect.Parameter.VAR_KEYWORD
    }
    return _described(own, hints, found)


def _described(defaults: Mapping[str, Any], hints: Mapping[str, Any], of: Any) -> dict[str, Option]:
    documented = docstring_parser.parse(inspect.getdoc(of) or "", docstring_parser.DocstringStyle.GOOGLE).params
    said = {p.arg_name: " ".join((p.description or "").split()) for p in documented}
    return {
        key: Option(
            _without_functions(hints[key]),
            default,
            checks.parameter_range(hints[key]),
            said.get(key, ""),
            checks.parameter_search(hints[key]),
        )
        for key, default in defaults.items()
    }


def _without_functions(annotation: Any) -> Any:
    """Return a union without the functions that only Python can pass."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    members = typing.get_args(annotation)
    kept = tuple(m for m in members if typing.get_origin(m) is not Callable)
    return typing.Union[kept] if len(kept) < len(members) else annotation  # noqa: UP007 - made of a tuple


def config(raw: Mapping[str, Any] | None = None, **more: Any) -> RunConfig:
    """Return a checked configuration; a part is a name, or a table with a `name` and options.

    Arguments:
        raw: nested values, as TOML gives them; strings are read as the type that is wanted.
        more: the same, on top of `raw`.

    Raises:
        ValueError: for every unknown key and every value out of range: the key, the value, what is allowed, and the
            nearest right name.

    >>> config(sharpness={"name": "msam", "rho": 0.3}).sharpness["rho"]
    0.3
    >>> config(sharpness={"name": "msam", "rho": -1})
    Traceback (most recent call last):
    ValueError: `sharpness.rho` must be >= 0, received -1.0.
    """
    raw = {**(raw or {}), **more}
    _known_keys(raw, RunConfig.model_fields, prefix="")
    parts = {kind: _part(kind, raw.get(kind)) for kind in KINDS}
    plain = {key: value for key, value in raw.items() if key not in KINDS}
    settings = _validated(RunConfig, {**plain, **parts}, prefix="", ranges=_ranges(RunConfig))
    for name in settings.encoders.values():
        checks.one_of("encoder", name, models.ENCODERS)
    return settings


def laid_over(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with others on top; a part that is named otherwise drops the options of the one below.

    >>> laid_over({"sharpness": {"name": "msam", "rho": 0.3}}, {"sharpness": {"every": 2}})
    {'sharpness': {'name': 'msam', 'rho': 0.3, 'every': 2}}
    >>> laid_over({"sharpness": {"name": "msam", "rho": 0.3}}, {"sharpness": "sam"})
    {'sharpness': {'name': 'sam'}}
    """
    raw = {**base, **more}
    for kind in KINDS:
        below, above = (layer.get(kind) for layer in (base, more))
        if above is None or below is None:
            continue
        given = dict(above) if isinstance(above, Mapping) else {"name": part_name(kind, above)}
        kept = dict(below) if isinstance(below, Mapping) else {"name": part_name(kind, below)}
        same = given.get("name", part_name(kind, kept)) == part_name(kind, kept)
        raw[kind] = {**(kept if same else {}), **given}
    return raw


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        ValueError: if it does not exist, cannot be read or is not TOML, naming the file and the place.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"No configuration file {path}.") from error
    except OSError as error:
        raise ValueError(f"Cannot read configuration file {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"Configuration file {path} is not TOML: {error}.") from error


def part_name(kind: str, value: Any) -> str:
    """Return the name of the part that `value` (a name, a table, None) stands for."""
    if isinstance(value, Mapping):
        return str(value.get("name", KINDS[kind].default))
    return KINDS[kind].default if value is None else str(value)


def _part(kind: str, value: Any) -> Part | None:
    name = part_name(kind, value)
    given = {k: v for k, v in value.items() if k != "name"} if isinstance(value, Mapping) else {}
    known = options(kind, name)
    if name == "none" and given:
        key = next(iter(given))
        raise ValueError(f"`{kind}.{key}` is given but no {kind} is chosen. Choose one with `{kind} = ...`.")
    _known_keys(given, known, prefix=f"{kind}.", of=name)
    if kind == "sharpness" and name == "none":
        return None
    columns: dict[str, Any] = {key: (_pydantic_type(o), o.default) for key, o in known.items()}
    model = create_model(f"{name}_options", __config__=ConfigDict(allow_inf_nan=False), **columns)
    checked = _validated(model, given, prefix=f"{kind}.", ranges={k: o.range for k, o in known.items()})
    return {"name": name, **json.loads(checked.model_dump_json())}


def _chosen(kind: str, part: Part | None) -> Part | None:
    if part is None:
        return None
    defaults = {key: json.loads(json.dumps(option.default)) for key, option in options(kind, part["name"]).items()}
    decides = {key: value for key, value in part.items() if key not in KINDS[kind].places}
    return {key: value for key, value in decides.items() if key == "name" or value != defaults.get(key)}


def _known_keys(given: Mapping[str, Any], known: Mapping[str, Any], *, prefix: str, of: str = "") -> None:
    for key in given:
        if key not in known:
            near = checks.did_you_mean(f"{prefix}{key}", [prefix + k for k in known])
            owner = f" of {prefix.rstrip('.')} {of!r}" if of else ""
            listed = ", ".join(prefix + k for k in known) or "none"
            raise ValueError(f"Unknown key '{prefix}{key}'{owner}.{near} Known: {listed}.")


def _pydantic_type(option: Option) -> Any:
    """Let a tuple also be written `4,3`, as on the command line."""
    members = [option.type, *typing.get_args(option.type)]
    if any(typing.get_origin(member) is tuple for member in members):
        return Annotated[option.type, BeforeValidator(lambda v: v.split(",") if isinstance(v, str) else v)]
    return option.type


def _ranges(model: type[BaseModel]) -> dict[str, Range | None]:
    hints = typing.get_type_hints(model, include_extras=True)
    return {key: checks.parameter_range(hints[key]) for key in model.model_fields}


def _validated(
    model: type[Checked], values: Mapping[str, Any], *, prefix: str, ranges: Mapping[str, Range | None]
) -> Checked:
    try:
        checked = model.model_validate(dict(values))
    except ValidationError as error:
        raise ValueError("\n".join(_explained(error, prefix))) from None
    for key, allowed in ranges.items():
        value = getattr(checked, key)
        if allowed is not None and value is not None:
            checks.in_range(prefix + key, value, allowed)
    return checked


def _explained(error: ValidationError, prefix: str) -> Iterator[str]:
    for problem in error.errors():
        what = problem["msg"].split(", unable")[0].removeprefix("Input should be ")
        near = ""
        if problem["type"] == "literal_error":
            near = checks.did_you_mean(problem["input"], [o.strip("'") for o in what.replace(" or ", ", ").split(", ")])
            what = f"one of {what}"
        yield f"`{prefix}{problem['loc'][0]}` must be {what}, received {problem['input']!r}.{near}"
