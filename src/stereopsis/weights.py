"""Weight files as users have them: safetensors, PyTorch files, and either kind in shards; a tensor at a time.

Only tensors are read; nothing in a file is executed.
"""

import contextlib
import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stereopsis.errors import CheckpointError
from stereopsis.files import write_whole

SHARD_BYTES = 2 * 1024**3
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin", "mm_inv_projector.safetensors", "mm_inv_projector.bin")
_TORCH = (".bin", ".pt", ".pth")


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """Type and shape of a stored tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size on disk."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One weight file and the names that it must hold."""

    path: Path
    names: tuple[str, ...]

    def tensors(self, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of the wanted ones, one at a time; files are mapped into memory.

        Raises:
            CheckpointError: the file is unreadable, or it and its index disagree.
        """
        if self.path.suffix == ".safetensors":
            with _opened(self.path) as file:
                self._check(file.keys())
            for name in filter(wanted, self.names):
                with _opened(self.path) as file:  # opened anew, or pages of all tensors so far would stay in memory
                    tensor = file.get_tensor(name)
                yield name, tensor
                del tensor
        else:
            stored = _torch_file(self.path)
            self._check(stored)
            for name in filter(wanted, self.names):
                yield name, stored[name]

    def specs(self) -> dict[str, Spec]:
        """Type and shape of every tensor; the tensors stay on disk.

        Raises:
            CheckpointError: the file is unreadable, or holds numbers of a kind that is not known.
        """
        if self.path.suffix != ".safetensors":
            return {name: Spec(dtype=tensor.dtype, shape=tuple(tensor.shape)) for name, tensor in self.tensors()}
        found = {}
        with _opened(self.path) as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                if part.get_dtype() not in _DTYPES:
                    raise CheckpointError(
                        f"{self.path}: '{name}' holds numbers of kind {part.get_dtype()}, expected one of "
                        f"{', '.join(_DTYPES)}; save it as one of these"
                    )
                found[name] = Spec(dtype=_DTYPES[part.get_dtype()], shape=tuple(part.get_shape()))
        return found

    def _check(self, held: Any) -> None:
        missing, unknown = sorted({*self.names} - {*held}), sorted({*held} - {*self.names})
        if missing or unknown:
            raise CheckpointError(
                f"{self.path} and its index disagree: {len(missing)} listed weights are not in it {missing[:3]}, "
                f"{len(unknown)} are not listed {unknown[:3]}; copy the checkpoint again"
            )


def shards_of(source: str | Path) -> list[Shard]:
    """The weight files of a checkpoint; only names are read.

    Args:
        source: a .safetensors file, a PyTorch file (.bin, .pt, .pth), an index of shards (.index.json), or a folder
            that holds one of these under its usual name.

    Raises:
        CheckpointError: there are none, a shard lacks, or the index is damaged or points elsewhere.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = [path / name for name in (*_INDEXES, *_SINGLE) if (path / name).is_file()]
        if not found:
            raise CheckpointError(f"{path} holds no weights; expected one of {', '.join((*_INDEXES, *_SINGLE))}")
        path = found[0]
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a weight file, an index of shards, or a folder with one")
    if path.suffix == ".json":
        return _from_index(path)
    if path.suffix == ".safetensors":
        with _opened(path) as file:
            return [Shard(path=path, names=tuple(file.keys()))]
    if path.suffix in _TORCH:
        return [Shard(path=path, names=tuple(_torch_file(path)))]
    raise CheckpointError(f"{path}: unknown kind of file; expected .safetensors, {', '.join(_TORCH)} or .index.json")


def read_weights(source: str | Path, wanted: Callable[[str], bool]) -> dict[str, Tensor | None]:
    """All names of a checkpoint, with the tensors of those that are wanted (None for the others).

    Args:
        source: as in `shards_of`.
        wanted: which names' tensors to read.

    Raises:
        CheckpointError: as in `shards_of`.
    """
    shards = shards_of(source)
    found: dict[str, Tensor | None] = {name: None for shard in shards for name in shard.names}
    for shard in shards:
        if any(map(wanted, shard.names)):
            found |= dict(shard.tensors(wanted))
    return found


def _from_index(index: Path) -> list[Shard]:
    try:
        places: dict[str, str] = json.loads(index.read_text())["weight_map"]
        files: dict[str, list[str]] = {}
        for name, file in places.items():
            files.setdefault(file, []).append(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of shards: it has no 'weight_map'; copy it again") from error
    shards = []
    for file, names in sorted(files.items()):
        path = index.parent / file
        if Path(file).name != file:
            raise CheckpointError(f"{index} points to '{file}', outside its folder; shards lie beside their index")
        if not path.is_file():
            raise CheckpointError(f"{index} names the shard {file}, which is not there; copy the checkpoint again")
        shards.append(Shard(path=path, names=tuple(names)))
    return shards


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); copy it again") from error


def _torch_file(path: Path) -> dict[str, Tensor]:
    try:  # files of before PyTorch 1.6 are no zip archives and cannot be mapped: they are read whole
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises whatever its unpickler meets
        raise CheckpointError(
            f"{path} cannot be read as a file of tensors ({type(error).__name__}); files with other objects are not "
            "opened, since opening them runs code: save its state dict alone, or take the .safetensors release"
        ) from error
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise CheckpointError(f"{path} holds something else than named tensors; save the model's state dict alone")
    return stored


class TensorFile:
    """A .safetensors file that is laid out first and filled a tensor at a time, in any order.

    Memory holds the tensor that is being written. The file gets its name when it is whole.

    Args:
        path: the file to make.
        specs: what it will hold, in this order.
    """

    def __init__(self, path: Path, specs: Mapping[str, Spec]) -> None:
        self.path, self.specs = path, dict(specs)
        self._partial = path.with_name(f".{path.name}.partial")
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self._missing, self._places, end = set(specs), {}, 0
        for name, spec in specs.items():
            self._places[name] = end
            header[name] = {
                "dtype": _NAMES[spec.dtype],
                "shape": list(spec.shape),
                "data_offsets": [end, end + spec.nbytes],
            }
            end += spec.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._start = 8 + len(text)
        with _writes(self._partial), self._partial.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(self._start + end)

    def add(self, name: str, tensor: Tensor) -> None:
        """Write one tensor.

        Raises:
            ValueError: it was not laid out, or it is of another type or shape, or it has been written.
            CheckpointError: the disk is full.
        """
        found = Spec(dtype=tensor.dtype, shape=tuple(tensor.shape))
        if name not in self._missing or self.specs[name] != found:
            raise ValueError(f"{self.path}: '{name}' was laid out as {self.specs.get(name)} once, got {found}")
        with _writes(self._partial), self._partial.open("r+b") as file:
            file.seek(self._start + self._places[name])
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        self._missing.remove(name)

    def close(self) -> None:
        """Give the file its name.

        Raises:
            ValueError: something was laid out that has not been written.
        """
        self.check()
        os.replace(self._partial, self.path)

    def check(self) -> None:
        """Refuse a file with holes.

        Raises:
            ValueError: something was laid out that has not been written.
        """
        if self._missing:
            raise ValueError(f"{self.path}: {len(self._missing)} weights were not written {sorted(self._missing)[:3]}")

    def abandon(self) -> None:
        """Remove what was written so far."""
        self._partial.unlink(missing_ok=True)


class ShardWriter:
    """``model-00001-of-0000N.safetensors`` and their index, or one ``model.safetensors``; filled as `TensorFile` is.

    Files get their names when all are complete: an interrupted conversion leaves no checkpoint that looks whole.

    Args:
        folder: where they go.
        specs: what they will hold, in this order.
        limit: bytes per shard; a larger tensor has one to itself.
    """

    def __init__(self, folder: Path, specs: Mapping[str, Spec], limit: int = SHARD_BYTES) -> None:
        self.folder = folder
        groups: list[dict[str, Spec]] = [{}]
        held = 0
        for name, spec in specs.items():
            if groups[-1] and held + spec.nbytes > limit:
                groups.append({})
                held = 0
            groups[-1][name] = spec
            held += spec.nbytes
        count = len(groups)
        titles = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
        self._files: list[TensorFile] = []
        try:
            for title, group in zip(titles if count > 1 else ["model.safetensors"], groups, strict=True):
                self._files.append(TensorFile(folder / title, group))
        except BaseException:
            self.abandon()
            raise
        self._file_of = {name: file for file in self._files for name in file.specs}
        self._total = sum(spec.nbytes for spec in specs.values())

    def add(self, name: str, tensor: Tensor) -> None:
        """Write one tensor (see `TensorFile.add`)."""
        if name not in self._file_of:
            raise ValueError(f"{self.folder}: '{name}' was not laid out")
        self._file_of[name].add(name, tensor)

    def close(self) -> None:
        """Give the files their names, and write the index last."""
        for file in self._files:
            file.check()
        for file in self._files:
            file.close()
        if len(self._files) > 1:
            places = {name: file.path.name for name, file in sorted(self._file_of.items())}
            write_json(self.folder / _INDEXES[0], {"metadata": {"total_size": self._total}, "weight_map": places})

    def abandon(self) -> None:
        """Remove what was written so far."""
        for file in self._files:
            file.abandon()


@contextlib.contextmanager
def _writes(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written ({error}); free some space and convert again") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    write_whole(path, json.dumps(content, indent=2) + "\n")
