"""The only values that a restricted pickle can build: numbers, strings, containers and numpy arrays.

Each name that plain data needs in a pickle stands for a constructor of this module, which checks its arguments and
copies bytes. numpy's own ``__setstate__`` methods, which trust their input, are not reached.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from stereopsis.scenes.pickles.pickle_scan import RefusedPickleError

MAX_DEPTH = 100
_DTYPE = re.compile(r"[<>|=]?(\?|O8?|[biufc](?:1|2|4|8|16)|[SU][1-9]\d{0,5})")
_ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes, bytearray, np.ndarray))
_UNFINISHED = object()


@dataclasses.dataclass(kw_only=True)
class Budget:
    """How many bytes the constructors may copy: a short file must not unfold to a huge one."""

    limit: int
    spent: int = 0

    def spend(self, count: int) -> None:
        """Account for a copy of so many bytes.

        Raises:
            RefusedPickleError: the limit is exceeded.
        """
        self.spent += count
        if self.spent > self.limit:
            raise RefusedPickleError(f"unfolds to more than {self.limit} bytes, many times its own size")


class Name:
    """Stands for a name in the file. It has no dictionary and refuses a state, so that no file can change it."""

    __slots__ = ("build", "name")

    def __init__(self, name: str, build: Callable[..., Any] | None) -> None:
        self.name = name
        self.build = build

    def __call__(self, *arguments: Any) -> Any:
        """Build the value, or refuse where the name is only ever referred to."""
        if self.build is None:
            raise RefusedPickleError(f"calls '{self.name}'")
        return self.build(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickleError(f"tries to change '{self.name}'")


@dataclasses.dataclass(slots=True)
class DtypeRecord:
    """A numpy dtype under construction; only numbers, booleans, fixed-length strings and objects."""

    code: str
    order: str = ""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise RefusedPickleError("gives a numpy dtype an unknown state")
        if any(part is not None for part in state[2:5]):
            raise RefusedPickleError("holds a structured numpy dtype")
        self.order = state[1].replace("|", "")

    def dtype(self) -> np.dtype:
        """The finished dtype."""
        bare = self.code.lstrip("<>|=")
        return np.dtype(object) if bare[0] == "O" else np.dtype((self.order or self.code[: -len(bare)]) + bare)


@dataclasses.dataclass(slots=True, eq=False)
class ArrayRecord:
    """A numpy array under construction: its items are checked and copied, once."""

    budget: Budget
    array: np.ndarray | None = None
    items: list[Any] | None = None
    shape: tuple[int, ...] = ()

    __hash__ = None  # type: ignore[assignment]

    def __setstate__(self, state: Any) -> None:
        if self.array is not None or not isinstance(state, tuple) or len(state) not in (4, 5):
            raise RefusedPickleError("gives a numpy array an unknown state")
        self.fill(*state[-4:])

    def fill(self, shape: Any, record: Any, fortran: Any, raw: Any) -> None:
        """Take the content: exactly the bytes that shape and dtype need, or as many objects.

        Raises:
            RefusedPickleError: it does not fit.
        """
        shape, dtype = checked_sizes(shape), _dtype_of(record)
        count = math.prod(shape)
        if dtype.hasobject:
            if not isinstance(raw, list) or len(raw) != count:
                raise RefusedPickleError(f"gives an object array of shape {shape} other than {count} items")
            self.items, self.array = raw, np.empty(0, dtype=object)
            self.shape = shape
            return
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(raw, bytes | bytearray) or len(raw) != count * dtype.itemsize:
            raise RefusedPickleError(f"gives an array of shape {shape} and type {dtype} other than its own bytes")
        self.budget.spend(len(raw))
        flat = np.frombuffer(raw, dtype) if count else np.empty(0, dtype)
        self.array = flat.reshape(shape, order="F" if fortran else "C").copy(order="K")

    def finished(self, seen: dict[int, Any], depth: int) -> np.ndarray:
        """The array, its objects (if it holds any) finished, too.

        Raises:
            RefusedPickleError: it was never filled, or holds something that is not plain.
        """
        if self.array is None:
            raise RefusedPickleError("holds a numpy array without content")
        if self.items is None:
            return self.array
        flat = np.empty(len(self.items), dtype=object)
        for index, item in enumerate(self.items):
            flat[index] = finished_value(item, seen, depth)
        return flat.reshape(self.shape)  # numpy writes objects in C order, whatever the array's own


def checked_sizes(shape: Any) -> tuple[int, ...]:
    """A shape or stride: at most 32 whole numbers, none negative.

    Raises:
        RefusedPickleError: it is something else.
    """
    if not isinstance(shape, tuple | list) or len(shape) > 32 or any(type(n) is not int or n < 0 for n in shape):
        raise RefusedPickleError(f"gives an array the shape {str(shape)[:60]}")
    return tuple(shape)


def _dtype_of(record: Any) -> np.dtype:
    if not isinstance(record, DtypeRecord):
        raise RefusedPickleError("gives an array something else than a dtype")
    return record.dtype()


_ARRAY_CLASS = Name("numpy.ndarray", None)


def _dtype(code: Any, *_: Any) -> DtypeRecord:
    if not isinstance(code, str) or not _DTYPE.fullmatch(code):
        raise RefusedPickleError(f"holds a numpy dtype {str(code)[:40]!r}")
    return DtypeRecord(code)


def _reconstruct(budget: Budget, kind: Any, *_: Any) -> ArrayRecord:
    if kind is not _ARRAY_CLASS:
        raise RefusedPickleError("holds a subclass of numpy's array")
    return ArrayRecord(budget)


def _scalar(budget: Budget, record: Any, raw: Any) -> Any:
    array = ArrayRecord(budget)
    array.fill((), record, False, raw)
    if array.array is None or array.items is not None:
        raise RefusedPickleError("holds a numpy scalar of a Python object")
    return array.array[()]


def _from_buffer(budget: Budget, raw: Any, record: Any, shape: Any, order: Any) -> ArrayRecord:
    array = ArrayRecord(budget)
    array.fill(shape, record, order == "F", raw)
    return array


def _encode(budget: Budget, text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickleError("calls '_codecs.encode' on something else than bytes in disguise")
    budget.spend(len(text))
    return text.encode("latin1")


def _copy(make: type, sources: tuple[type, ...], budget: Budget, source: Any = (), encoding: Any = None) -> Any:
    """A built-in container of another one, or bytes of the text that old protocols write for them."""
    if encoding is not None:
        source = _encode(budget, source, encoding)
    if type(source) not in sources:
        raise RefusedPickleError(f"calls '{make.__name__}' with {type(source).__name__}")
    budget.spend(8 * len(source))
    return make(source)


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    return complex(float(real), float(imaginary))


_BUILDERS: tuple[tuple[tuple[str, ...], str, Callable[..., Any], bool], ...] = (
    (("numpy",), "dtype", _dtype, False),
    (("numpy.core.multiarray", "numpy._core.multiarray"), "_reconstruct", _reconstruct, True),
    (("numpy.core.multiarray", "numpy._core.multiarray"), "scalar", _scalar, True),
    (("numpy.core.numeric", "numpy._core.numeric"), "_frombuffer", _from_buffer, True),
    (("_codecs",), "encode", _encode, True),
    (("builtins", "__builtin__"), "set", functools.partial(_copy, set, (list, tuple)), True),
    (("builtins", "__builtin__"), "frozenset", functools.partial(_copy, frozenset, (list, tuple)), True),
    (("builtins", "__builtin__"), "bytes", functools.partial(_copy, bytes, (tuple, bytes)), True),
    (("builtins", "__builtin__"), "bytearray", functools.partial(_copy, bytearray, (tuple, bytes)), True),
    (("builtins", "__builtin__"), "complex", _complex, False),
    (("collections",), "OrderedDict", functools.partial(_copy, dict, (list, tuple)), True),
)
"""Modules, name, constructor, and whether it copies at the budget's cost."""


def plain_names(budget: Budget) -> dict[tuple[str, str], Name]:
    """{(module, name) in the file: what stands for it}."""
    names = {("numpy", "ndarray"): _ARRAY_CLASS}
    for modules, name, build, copies in _BUILDERS:
        bound = functools.partial(build, budget) if copies else build
        names.update({(module, name): Name(f"{module}.{name}", bound) for module in modules})
    return names


def finished_value(value: Any, seen: dict[int, Any], depth: int) -> Any:
    """The value with arrays in the place of their records; refuses whatever is not plain.

    `seen` keeps each container that was met together with its result: what is shared stays shared, and nothing is
    walked twice.
    """
    if type(value) in _ATOMS or isinstance(value, np.generic):
        return value
    if depth > MAX_DEPTH:
        raise RefusedPickleError(f"nests containers more than {MAX_DEPTH} deep")
    if id(value) in seen:
        result = seen[id(value)][1]
        if result is _UNFINISHED:
            raise RefusedPickleError("holds a container that contains itself")
        return result
    seen[id(value)] = (value, _UNFINISHED)
    result = _rebuilt(value, seen, depth + 1)
    seen[id(value)] = (value, result)
    return result


def _rebuilt(value: Any, seen: dict[int, Any], depth: int) -> Any:
    kind = type(value)
    if kind is list:
        for index, item in enumerate(value):
            if type(item) not in _ATOMS:
                value[index] = finished_value(item, seen, depth)
        return value
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                finished_value(key, seen, depth)
            if type(item) not in _ATOMS:
                value[key] = finished_value(item, seen, depth)
        return value
    if kind is tuple:
        items = tuple(finished_value(item, seen, depth) for item in value)
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    if kind in (set, frozenset):
        for item in value:
            finished_value(item, seen, depth)
        return value
    if kind is ArrayRecord:
        return value.finished(seen, depth)
    if kind is DtypeRecord:
        return value.dtype()
    name = f"'{value.name}' itself" if kind is Name else f"an object of type {kind.__name__}"
    raise RefusedPickleError(f"holds {name}")
