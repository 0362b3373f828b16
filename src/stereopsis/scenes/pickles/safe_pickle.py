"""Reading ``.pkl`` and ``.pth`` files of others without running what they say.

Unpickling runs the file's own choice of functions; these files are passed around on the web. The loader here builds
numbers, strings, containers, numpy arrays and (from ``.pth``) tensors as numpy arrays, and nothing else. It never
imports a name that a file gives: each of the few names that plain data needs stands for a constructor of this
module, which checks its arguments and copies bytes. numpy's own ``__setstate__`` methods and torch are not reached.
"""

import dataclasses
import functools
import io
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stereopsis.errors import SceneError
from stereopsis.reading import read_bytes
from stereopsis.scenes.pickles.pickle_scan import RefusedPickleError, check_instructions
from stereopsis.scenes.pickles.pickle_values import Budget, Name, checked_sizes, finished_value, plain_names

MAX_BYTES = 2 * 1024**3
_LEGACY_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that PyTorch's files began with before 1.6
_REMEDY = (
    "nothing in it was run; get the file from its original source, or have its owner write plain dictionaries, lists "
    "and numpy arrays (.npz or JSON are safer still)"
)
_STORAGE_TYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}


def load_pickle(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a pickle that holds plain data only.

    Args:
        path: the file.
        max_bytes: the largest file that is read into memory.

    Returns:
        None, booleans, numbers, strings, bytes, lists, tuples, sets, dictionaries (also for OrderedDict), numpy
        arrays, scalars and dtypes, as the file nests them. Arrays are copies that may be written to.

    Raises:
        SceneError: the file is absent, too large, damaged, or asks for anything else; nothing of it was run.
    """
    path = Path(path)
    return loads_pickle(_read(path, max_bytes), str(path))


def loads_pickle(data: bytes, where: str) -> Any:
    """`load_pickle` of bytes; `where` is the name for messages.

    Raises:
        SceneError: as for `load_pickle`.
    """
    budget = Budget(limit=4 * len(data) + 2**24)
    return _load(data, where, plain_names(budget), None)


def load_torch(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a ``.pth`` or ``.pt`` file of PyTorch 1.6 or later without PyTorch; tensors become numpy arrays.

    bfloat16, which numpy lacks, becomes float32. See `load_pickle` for what else can be in it.

    Raises:
        SceneError: the file is absent, too large, damaged, of PyTorch's older form, or asks for anything but plain
            data; nothing of it was run.
    """
    path = Path(path)
    data = _read(path, max_bytes)
    if not zipfile.is_zipfile(io.BytesIO(data)):
        form = "is of PyTorch's form before 1.6" if _LEGACY_TORCH in data[:64] else "is not a .pth file (a zip archive)"
        raise SceneError(
            f"{path}: {form}; expected what torch.save has written since PyTorch 1.6; if you trust the file, write it "
            "again with torch.save(torch.load(path, weights_only=True), new_path)"
        )
    budget = Budget(limit=4 * len(data) + 2**24)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            storages = _Storages(archive, len(data), budget)
            pickled = storages.member("data.pkl")
            names = {**plain_names(budget), **_torch_names(budget)}
            return _load(pickled, str(path), names, storages)
    except (zipfile.BadZipFile, RefusedPickleError, KeyError, NotImplementedError, RuntimeError) as error:
        raise SceneError(
            f"{path}: cannot be read as a .pth file: it {error}; expected what torch.save writes; copy the file again"
        ) from error


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise SceneError(f"{path}: is not a file; expected a pickle; check the path")
        if size > max_bytes:
            raise SceneError(
                f"{path}: has {size} bytes, more than the {max_bytes} that are read into memory; check that this is "
                "the right file, or raise max_bytes"
            )
        return read_bytes(path)
    except FileNotFoundError as error:
        raise SceneError(f"{path}: does not exist; check the path") from error
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def _load(data: bytes, where: str, names: dict[tuple[str, str], "Name"], storages: "_Storages | None") -> Any:
    try:
        check_instructions(data, persistent=storages is not None)
        value = _Unpickler(data, names, storages).load()
        return finished_value(value, {}, 0)
    except RefusedPickleError as error:
        raise SceneError(
            f"{where}: refused: it {error}; expected plain data and numpy arrays only; {_REMEDY}"
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise SceneError(
            f"{where}: damaged, or not a pickle of plain data ({type(error).__name__}: {error}); copy the file again"
        ) from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, names: dict[tuple[str, str], "Name"], storages: "_Storages | None") -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._names = names
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        known = self._names.get((module, name))
        if known is None:
            full = f"{module}.{name}"
            raise RefusedPickleError(f"names {full[:100]!r}")
        return known

    def persistent_load(self, pid: Any) -> Any:
        if self._storages is None:
            raise RefusedPickleError("refers to an object outside the file")
        return self._storages.find(pid)


def _tensor(budget: Budget, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    size, stride, (offset,) = checked_sizes(size), checked_sizes(stride), checked_sizes((offset,))
    if not isinstance(storage, _Storage) or len(size) != len(stride):
        raise RefusedPickleError("holds a tensor without its storage")
    values, count = storage.values, math.prod(size)
    if not count:
        return storage.converted(np.empty(size, values.dtype))
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= len(values):
        raise RefusedPickleError(f"holds a tensor that reaches to item {last} of a storage of {len(values)}")
    budget.spend(count * values.itemsize)
    bytes_stride = tuple(step * values.itemsize for step in stride)
    view = np.lib.stride_tricks.as_strided(values[offset:], size, bytes_stride, writeable=False)
    return storage.converted(view.copy())


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _torch_names(budget: Budget) -> dict[tuple[str, str], Name]:
    builders: dict[tuple[str, str], Callable[..., Any] | None] = {
        ("torch._utils", "_rebuild_tensor_v2"): functools.partial(_tensor, budget),
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch", "Size"): checked_sizes,
        **{("torch", kind): None for kind in _STORAGE_TYPES},
    }
    return {key: Name(".".join(key), build) for key, build in builders.items()}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Storage:
    """A tensor's memory: its values, and whether they are bfloat16."""

    values: np.ndarray
    bfloat16: bool

    def converted(self, array: np.ndarray) -> np.ndarray:
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        return (array.astype(np.uint32) << 16).view(np.float32) if self.bfloat16 else array

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickleError("tries to change a storage")


class _Storages:
    """The archive members that hold tensors' memory, read when the pickle refers to them."""

    def __init__(self, archive: zipfile.ZipFile, size: int, budget: Budget) -> None:
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise RefusedPickleError(f"holds {len(pickles)} entries '*/data.pkl', expected one")
        self._archive, self._size, self._budget = archive, size, budget
        self._prefix = pickles[0].removesuffix("data.pkl")
        self._found: dict[tuple[str, str], _Storage] = {}
        order = self.member("byteorder") if f"{self._prefix}byteorder" in archive.namelist() else b"little"
        self._order = ">" if order.strip() == b"big" else "<"

    def member(self, name: str) -> bytes:
        info = self._archive.getinfo(self._prefix + name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self._size:
            raise RefusedPickleError(f"holds a compressed entry '{info.filename}', which torch.save never writes")
        self._budget.spend(info.file_size)
        return self._archive.read(info)

    def find(self, pid: Any) -> _Storage:
        known = isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], Name)
        if not known or not isinstance(pid[2], str) or not pid[2].isdigit():
            raise RefusedPickleError(f"refers to an unknown object {str(pid)[:60]!r}")
        kind = pid[1].name.removeprefix("torch.")
        if kind not in _STORAGE_TYPES:
            raise RefusedPickleError(f"refers to a storage of the unknown type '{pid[1].name}'")
        key = (pid[2], kind)
        if key not in self._found:
            raw, dtype = self.member(f"data/{pid[2]}"), np.dtype(self._order + _STORAGE_TYPES[kind])
            if type(pid[4]) is not int or len(raw) != pid[4] * dtype.itemsize:
                raise RefusedPickleError(f"gives storage {pid[2]} {pid[4]} items, but it has {len(raw)} bytes")
            self._found[key] = _Storage(np.frombuffer(raw, dtype), kind == "BFloat16Storage")
        return self._found[key]
