"""One scene's tensors in one file, read where they lie: safetensors with plain facts and a checksum per tensor.

Reading maps the file into memory, so that only the pages that are used are ever loaded and the system may drop them
again: host memory does not grow with the number of files.
"""

import dataclasses
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stereopsis.errors import CacheError
from stereopsis.files import write_atomic
from stereopsis.reading import open_tensors as _open
from stereopsis.reading import parse_json

_FACTS = "facts"
_CHECKSUMS = "crc32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorFile:
    """A file that was found whole: its header is read, its tensors are not.

    Attributes:
        path: where it lies.
        facts: plain values that were stored with the tensors.
        shapes: of every tensor, by name.
    """

    path: Path
    facts: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    checksums: Mapping[str, int]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, mapped into memory: nothing is read before it is used, and all goes when they go.

        Raises:
            CacheError: the file is gone or damaged.
        """
        with _opened(self.path) as file:
            return {name: file.get_tensor(name) for name in self.shapes}

    def verify(self) -> None:
        """Compare every tensor with its checksum.

        Raises:
            CacheError: names the file and the tensor.
        """
        for name, tensor in self.tensors().items():
            if _checksum(tensor) != self.checksums.get(name):
                raise CacheError(f"{self.path}: the tensor '{name}' is damaged (its checksum differs); {_REMEDY}")


_REMEDY = "delete this file and run the same command again: it will be made anew"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write a file whole or not at all.

    Args:
        path: ends in .safetensors.
        tensors: on any device.
        facts: plain JSON values.

    Raises:
        CacheError: no space, no permission; nothing half-written is left.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    owners = {tensor.data_ptr(): name for name, tensor in plain.items()}
    # a tensor that stands under two names is stored twice: the format refuses shared memory
    plain = {name: t if owners[t.data_ptr()] == name else t.clone() for name, t in plain.items()}
    checksums = {name: _checksum(tensor) for name, tensor in plain.items()}
    data = save(plain, metadata={_FACTS: json.dumps(facts), _CHECKSUMS: json.dumps(checksums)})
    return write_atomic(path, data, error=CacheError)


def open_tensors(path: Path) -> TensorFile:
    """Read a file's header.

    Raises:
        CacheError: absent, cut short, or not such a file.
    """
    with _opened(path) as file:
        try:
            metadata = file.metadata() or {}
            facts, checksums = parse_json(metadata[_FACTS]), parse_json(metadata[_CHECKSUMS])
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (KeyError, ValueError) as error:
            raise CacheError(f"{path}: holds no facts about its tensors ({error!r}); {_REMEDY}") from error
    return TensorFile(path=path, facts=facts, shapes=shapes, checksums=checksums)


def _opened(path: Path) -> Any:
    try:
        return _open(path)
    except FileNotFoundError as error:
        raise CacheError(f"{path}: does not exist; {_REMEDY.partition(' and ')[2]}") from error
    except (ValueError, OSError) as error:
        raise CacheError(f"{path}: is damaged or was cut short ({error}); {_REMEDY}") from error


def _checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data) if tensor.numel() else 0
