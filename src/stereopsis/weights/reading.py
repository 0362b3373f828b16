"""Weight files as users have them: safetensors, PyTorch files, and either kind in shards; a tensor at a time.

Only tensors are read; nothing in a file is executed.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stereopsis.errors import CheckpointError
from stereopsis.reading import open_tensors, read_json, read_torch
from stereopsis.weights.mistaken import instead_of_weights, what_it_is

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin", "mm_inv_projector.safetensors", "mm_inv_projector.bin")
_TORCH = (".bin", ".pt", ".pth")
_WRAPPERS = ("state_dict", "module", "model")


DTYPES = {
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
"""Kinds of numbers by safetensors' names."""


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
                if part.get_dtype() not in DTYPES:
                    raise CheckpointError(
                        f"{self.path}: '{name}' holds numbers of kind {part.get_dtype()}, expected one of "
                        f"{', '.join(DTYPES)}; save it as one of these"
                    )
                found[name] = Spec(dtype=DTYPES[part.get_dtype()], shape=tuple(part.get_shape()))
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
        found = [path / name for name in (*INDEXES, *_SINGLE) if (path / name).is_file()]
        if not found:
            expected = ", ".join((*INDEXES, *_SINGLE))
            raise CheckpointError(f"{path} holds no weights; expected one of {expected}{instead_of_weights(path)}")
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
        weight_map: dict[str, str] = read_json(index)["weight_map"]
        files: dict[str, list[str]] = {}
        for name, file in weight_map.items():
            files.setdefault(file, []).append(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is no index of shards: it has no 'weight_map'; copy it again{what_it_is(index)}"
        ) from error
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
        return open_tensors(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({error}); copy it again{what_it_is(path)}"
        ) from error


def _torch_file(path: Path) -> dict[str, Tensor]:
    try:
        stored = read_torch(path)
    except Exception as error:  # torch raises whatever its unpickler meets
        raise CheckpointError(
            f"{path} cannot be read as a file of tensors ({type(error).__name__}); files with other objects are not "
            f"opened, since opening them runs code: save its state dict alone, or take the .safetensors release"
            f"{what_it_is(path)}"
        ) from error
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        inside = [key for key in _WRAPPERS if isinstance(stored, dict) and isinstance(stored.get(key), dict)]
        under = f"; its tensors seem to lie under '{inside[0]}'" if inside else ""
        raise CheckpointError(
            f"{path} holds something else than named tensors; save the model's state dict alone{under}"
            f"{what_it_is(path)}"
        )
    return stored
