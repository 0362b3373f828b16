"""Weight files laid out first and filled a tensor at a time: whole or not at all, and no more in memory than that."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stereopsis.errors import CheckpointError
from stereopsis.files import write_atomic
from stereopsis.weights.reading import DTYPES, INDEXES, Spec

SHARD_BYTES = 2 * 1024**3
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class TensorFileWriter:
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
    """``model-00001-of-0000N.safetensors`` and their index, or one file; filled like a `TensorFileWriter`.

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
        self._files: list[TensorFileWriter] = []
        try:
            for title, group in zip(titles if count > 1 else ["model.safetensors"], groups, strict=True):
                self._files.append(TensorFileWriter(folder / title, group))
        except BaseException:
            self.abandon()
            raise
        self._file_of = {name: file for file in self._files for name in file.specs}
        self._total = sum(spec.nbytes for spec in specs.values())

    def add(self, name: str, tensor: Tensor) -> None:
        """Write one tensor (see `TensorFileWriter.add`)."""
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
            weight_map = {name: file.path.name for name, file in sorted(self._file_of.items())}
            write_json(self.folder / INDEXES[0], {"metadata": {"total_size": self._total}, "weight_map": weight_map})

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
    write_atomic(path, json.dumps(content, indent=2) + "\n", error=CheckpointError)
