"""Weight files as users have them: safetensors, PyTorch files, and either kind in shards; a tensor at a time.

Only tensors are read; nothing in a file is executed.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stereopsis.errors import CheckpointError

SHARD_BYTES = 2 * 1024**3
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin", "mm_inv_projector.safetensors", "mm_inv_projector.bin")
_TORCH = (".bin", ".pt", ".pth")


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
                    yield name, file.get_tensor(name)
        else:
            stored = _torch_file(self.path)
            self._check(stored)
            for name in filter(wanted, self.names):
                yield name, stored[name]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor; those of safetensors files stay on disk."""
        if self.path.suffix == ".safetensors":
            with _opened(self.path) as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return {name: tuple(tensor.shape) for name, tensor in self.tensors()}

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
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises whatever its unpickler meets
        raise CheckpointError(
            f"{path} cannot be read as a file of tensors ({type(error).__name__}); files with other objects are not "
            "opened, since opening them runs code: save its state dict alone, or take the .safetensors release"
        ) from error
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise CheckpointError(f"{path} holds something else than named tensors; save the model's state dict alone")
    return stored


class ShardWriter:
    """Writes ``model-00001-of-0000N.safetensors`` and their index; memory holds one shard at most.

    Files get their names when all are complete: an interrupted conversion leaves no checkpoint that looks whole.

    Args:
        folder: where they go.
        limit: bytes per shard.
    """

    def __init__(self, folder: Path, limit: int = SHARD_BYTES) -> None:
        self.folder, self.limit = folder, limit
        self._waiting: dict[str, Tensor] = {}
        self._bytes = self._total = 0
        self._names: list[tuple[str, ...]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Take one tensor."""
        size = tensor.numel() * tensor.element_size()
        if self._waiting and self._bytes + size > self.limit:
            self._flush()
        self._waiting[name] = tensor.contiguous()
        self._bytes += size
        self._total += size

    def close(self) -> Sequence[Path]:
        """Write what is left, give the files their names, and write the index last."""
        self._flush()
        count = len(self._names)
        paths, places = [], {}
        for number, names in enumerate(self._names, start=1):
            title = "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
            os.replace(self._partial(number), self.folder / title)
            paths.append(self.folder / title)
            places.update(dict.fromkeys(names, title))
        if count > 1:
            index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(places.items()))}
            write_json(self.folder / _INDEXES[0], index)
        return paths

    def _partial(self, number: int) -> Path:
        return self.folder / f".model-{number:05d}.partial"

    def _flush(self) -> None:
        if not self._waiting:
            return
        path = self._partial(len(self._names) + 1)
        try:
            save_file(self._waiting, path, metadata={"format": "pt"})
        except (OSError, SafetensorError) as error:
            path.unlink(missing_ok=True)
            raise CheckpointError(f"{path} cannot be written ({error}); free some space and convert again") from error
        self._names.append(tuple(self._waiting))
        self._waiting, self._bytes = {}, 0

    def abandon(self) -> None:
        """Remove what was written so far."""
        for number in range(1, len(self._names) + 2):
            self._partial(number).unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, path)
