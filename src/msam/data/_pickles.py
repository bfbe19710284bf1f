"""Read plain data and numpy arrays out of a pickle without running anything of it.

A pickle is a program. The one here is looked through before it starts, opcode by opcode; it is then run by Python's own
unpickler, to which no name of a module means anything but those listed at the end. They lead to functions of this file,
never to numpy: what comes out are bytes with a shape and a type, checked against one another before they become an array.
"""

import math
import pickle
import pickletools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

OPCODES = frozenset(
    """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT
    BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE
    BINUNICODE BINUNICODE8 EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT
    SETITEM SETITEMS GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD
    """.split()  # noqa: SIM905 - read as a list
)
KINDS = "biufSU"
"""Kinds of arrays that are let in: truth values, numbers, bytes and text; not objects, records, dates."""

LONGEST = 1000
"""Characters of a text in an array of objects: as many are given room to every one of them."""


MOST = 50_000_000
"""Characters of all texts of an array of objects together."""


def load(path: Path) -> Any:
    """Return what a pickle holds: dicts, lists, tuples, text, bytes, numbers, and numpy arrays, scalars and types.

    Pickles of Python 2 and 3, protocols 0 to 5, of numpy 1 and 2. Text of Python 2 is read as latin-1. An array of
    objects is let in when all of them are text, and becomes an array of text. A pickle may name the same bytes many times,
    so what comes out may be larger than the file.

    Arguments:
        path: the file.

    Raises:
        ValueError: if it is missing, truncated or damaged, or holds anything else: named, and nothing of it was run.
    """
    try:
        with path.open("rb") as file:
            _look_through(file)
            file.seek(0)
            return _finished(_Reader(file, encoding="latin1").load(), {})
    except FileNotFoundError as error:
        raise ValueError(f"The pickle must exist, found none at {path}.") from error
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}.") from error
    except _Refused as error:
        raise ValueError(
            f"{path} must hold plain data and numpy arrays only, found {error}. Nothing of it was run. Get the file from "
            "where docs/data says."
        ) from error
    except (MemoryError, RecursionError) as error:
        raise ValueError(f"{path} is too large or nested too deep to be read: {type(error).__name__}.") from error
    except Exception as error:  # a damaged pickle raises a dozen kinds
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise ValueError(f"{path} is truncated, damaged or no pickle ({reason}). Get it again.") from error


class _Refused(Exception):
    """Something that is not plain data; the message says what."""


def _look_through(file: IO[bytes]) -> None:
    """Read a pickle to its end without running it; its numbered places must be as dense as a pickler makes them."""
    for count, (opcode, argument, position) in enumerate(pickletools.genops(file)):
        if opcode.name not in OPCODES:
            raise _Refused(f"the opcode {opcode.name} at byte {position}")
        if opcode.name == "GLOBAL":
            _known(*str(argument).split(" ", 1))
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count + 1:
            raise _Refused(f"the place {argument} in memory at byte {position}")


InPython: Any = pickle._Unpickler


class _Reader(InPython):
    """Knows no names but those of `_ADMITTED`, and no keys but plain ones.

    Python's own edition in Python, as that in C does not let itself be asked before it hashes a key: tuples that hold one
    another twice are a few bytes long and take for ever.
    """

    def load_setitem(self) -> None:
        """Look at the key first."""
        _plain(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        """Look at the keys first."""
        _plain(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        """Look at the keys first."""
        _plain(self.stack[::2])
        super().load_dict()

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **InPython.dispatch,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name of a module, or refuse it."""
        return _known(module, name)

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse what lies outside the file."""
        raise _Refused(f"a reference {_named(pid)} to something outside the file")


def _plain(keys: Iterable[Any]) -> None:
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, str | bytes | int | float | None) for part in parts):
            raise _Refused(f"a dict with a {type(key).__name__.strip('_').lower()} as a key")


def _named(value: Any) -> str:
    """Return how an error speaks of a value: never all of it, which may be longer than the file by far."""
    if isinstance(value, str):
        return repr(value[:40])
    return repr(value) if value is None or isinstance(value, bool | float) else f"of {type(value).__name__}"


class _Stand:
    """Stands for something of numpy: it can be called, and nothing else can be done to it."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused(f"a change of {name!r} of something of numpy")

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a change of something of numpy")


class _Type:
    """A numpy type on its way: code first, byte order afterwards."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any = None, align: Any = False, copy: Any = True) -> None:
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise _Refused(f"a numpy type in the state {_named(state)}")
        if any(part is not None for part in state[2:5]):
            raise _Refused(f"a structured numpy type {_named(self._code)}")
        self._order = state[1]

    @property
    def finished(self) -> np.dtype[Any]:
        """The type."""
        code = self._code
        if not isinstance(code, str) or code[:1] not in (*KINDS, "O") or not code[1:].isdecimal():
            raise _Refused(f"a numpy type {_named(code)}")
        return np.dtype(code).newbyteorder("=" if self._order == "|" else self._order)  # type: ignore[arg-type]


class _Array:
    """A numpy array on its way: the state comes later."""

    __slots__ = ("value",)

    def __init__(self, value: NDArray[Any] | None = None) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused(f"a numpy array in the state {_named(state)}")
        _, shape, kind, fortran, raw = state
        self.value = _array(raw, kind, shape, "F" if fortran else "C")


def _reconstruct(_kind: Any, _shape: Any, _code: Any) -> _Array:
    return _Array()


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    """Return what protocol 5 stores: C or F, or C with its axes in another order."""
    if axes is None:
        return _Array(_array(raw, kind, shape, order))
    return _Array(_array(raw, kind, shape, "C").transpose(axes))


def _scalar(kind: Any, raw: Any = b"") -> Any:
    return _array(raw, kind, (), "C")[()]


def _encode(text: Any, encoding: Any = None) -> bytes:
    """Return bytes as Python 3 writes them into pickles of Python 2's protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"a text encoded as {_named(encoding)}")
    return text.encode("latin-1")


def _no_bytes(*arguments: Any) -> bytes:
    """Return empty bytes, which Python 3 writes as a call into pickles of Python 2's protocols."""
    if arguments:
        raise _Refused("a call of bytes")
    return b""


def _no_array(*_: Any) -> NoReturn:
    raise _Refused("a call of numpy.ndarray")


def _array(raw: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    """Return the array of these bytes."""
    dtype = _finished_type(kind)
    sizes = shape if isinstance(shape, tuple) else (None,)
    if not all(isinstance(size, int) and size >= 0 for size in sizes) or order not in ("C", "F"):
        raise _Refused(f"a numpy array of shape {_named(shape)} in the order {_named(order)}")
    if dtype.kind == "O":
        return _texts(raw, sizes, order)
    content = raw.encode("latin-1") if isinstance(raw, str) else raw
    wanted = math.prod(sizes) * dtype.itemsize
    if not isinstance(content, bytes | bytearray) or len(content) != wanted:
        found = f"{len(content)} bytes" if isinstance(content, bytes | bytearray) else type(content).__name__
        raise _Refused(f"a numpy array of shape {sizes} of {dtype} with {found} instead of {wanted}")
    if not wanted:
        return np.empty(sizes, dtype)
    return np.frombuffer(content, dtype).reshape(sizes, order=order)


def _texts(raw: Any, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    found = (
        next((type(value).__name__ for value in raw if type(value) is not str), "") if type(raw) is list else "no list"
    )
    if found or len(raw) != math.prod(shape):
        raise _Refused(f"a numpy array of objects (of {found or 'another size'}), not of numbers or text")
    if max(map(len, raw), default=0) > LONGEST:
        raise _Refused(f"a text of more than {LONGEST} characters in a numpy array of objects")
    if len(raw) * max(map(len, raw), default=0) > MOST:
        raise _Refused(f"a numpy array of objects that takes more than {MOST} characters")
    return np.array(raw, dtype=np.str_).reshape(shape, order=order)


def _finished_type(kind: Any) -> np.dtype[Any]:
    if not isinstance(kind, _Type):
        raise _Refused(f"a numpy array of the type {_named(kind)}")
    return kind.finished


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """Return `value` with arrays and types in place of what stood for them; every part is visited once."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _Stand):
        raise _Refused("a function or class of numpy")
    if isinstance(value, _Array):
        if value.value is None:
            raise _Refused("a numpy array without content")
        return value.value
    if isinstance(value, _Type):
        return _finished_type(value)
    done[id(value)] = value
    if isinstance(value, dict):
        for key, part in list(value.items()):
            value[key] = _finished(part, done)
    elif isinstance(value, list):
        value[:] = [_finished(part, done) for part in value]
    elif isinstance(value, tuple):
        done[id(value)] = tuple(_finished(part, done) for part in value)
    return done[id(value)]


_CORES = ("numpy.core", "numpy._core")
_ADMITTED: Mapping[tuple[str, str], _Stand] = {
    ("numpy", "ndarray"): _Stand(_no_array),
    ("numpy", "dtype"): _Stand(_Type),
    ("_codecs", "encode"): _Stand(_encode),
    **{(builtins, "bytes"): _Stand(_no_bytes) for builtins in ("builtins", "__builtin__")},
    **{(f"{core}.multiarray", "_reconstruct"): _Stand(_reconstruct) for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): _Stand(_scalar) for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _Stand(_from_buffer) for core in _CORES},
}


def _known(module: str, name: str = "") -> _Stand:
    try:
        return _ADMITTED[module, name]
    except KeyError:
        raise _Refused(f"the name {module}.{name}") from None
