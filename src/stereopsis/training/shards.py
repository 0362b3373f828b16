"""Sharded checkpoints from strangers: torch reads their pickles without restraint, so they are looked through first.

A folder of shards holds ``.metadata``, a pickle that says what lies where, and ``*.distcp`` files in which tensors and
other small values (pickles, again) stand one after the other. Torch unpickles the metadata and the small values freely.
`check_shards` reads both beforehand, without calling anything that a file names, and refuses a folder that names more
than torch itself writes.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from stereopsis.errors import CheckpointError
from stereopsis.reading import open_plain, read_bytes
from stereopsis.scenes.pickles.pickle_scan import RefusedPickleError, check_instructions

METADATA = ".metadata"
MOST_METADATA = 512 * 1024**2
"""Bytes of the largest ``.metadata`` that is read; 10 000 parameters on 64 processes take about 100 MB."""

_CHECKPOINT = "torch.distributed.checkpoint"
_KNOWN = frozenset(
    {
        *((f"{_CHECKPOINT}.metadata", name) for name in ("Metadata", "MetadataIndex", "StorageMeta")),
        *((f"{_CHECKPOINT}.metadata", f"{kind}StorageMetadata") for kind in ("Tensor", "Bytes", "Chunk")),
        *((f"{_CHECKPOINT}.metadata", name) for name in ("TensorProperties", "_MEM_FORMAT_ENCODING")),
        (f"{_CHECKPOINT}.filesystem", "_StorageInfo"),
        ("torch.serialization", "_get_layout"),
        ("torch", "Size"),
        *((module, kind) for module in ("pathlib", "pathlib._local") for kind in ("PosixPath", "WindowsPath")),
        *(("torch", name) for name, value in vars(torch).items() if isinstance(value, torch.dtype)),
    }
)
"""What torch writes into ``.metadata``."""

_DEEPSPEED = frozenset(
    {
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
    }
)
"""What DeepSpeed writes beside tensors."""

_REMEDY = "copy the checkpoint again, or delete its folder to resume from the one before it"


class _StandIn:
    """Takes the place of what a pickle names: it keeps what it is given and does nothing.

    Its ``__setstate__`` also keeps a pickle from setting attributes of the class itself.
    """

    state: Any = None

    def __new__(cls, *_: Any) -> "_StandIn":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def fields(self) -> dict[str, Any]:
        """The attributes that the object would have had."""
        return self.state if isinstance(self.state, dict) else {}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._made: dict[tuple[str, str], type] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise RefusedPickleError(f"names {f'{module}.{name}'[:100]!r}")
        if (module, name) not in self._made:
            self._made[module, name] = type(name, (_StandIn,), {})
        return self._made[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedPickleError("refers to an object outside the file")


def check_shards(folder: Path) -> None:
    """Refuse a folder of shards whose pickles name anything but what torch writes; nothing of them is carried out.

    Raises:
        CheckpointError: they do, or the folder is damaged.
    """
    for path in [folder / METADATA, *sorted(folder.glob(f"__*{METADATA}"))]:
        _check_values(folder, _located(path))


def _located(path: Path) -> dict[Any, Any]:
    """What a ``.metadata`` says about where values lie: stand-ins of torch's own classes."""
    try:
        if path.stat().st_size > MOST_METADATA:
            raise CheckpointError(f"{path} has more than {MOST_METADATA} bytes, too many; copy the checkpoint again")
        data = read_bytes(path)
        check_instructions(data, objects=True)
        found = _Unpickler(data).load()
        located = found.fields()["storage_data"]
        if not isinstance(located, dict):
            raise RefusedPickleError("does not say where values lie")
    except RefusedPickleError as error:
        raise _refused(path, error) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {error}); {_REMEDY}") from error
    return located


def _check_values(folder: Path, located: dict[Any, Any]) -> None:
    """Read every small value with torch's restricted unpickler; torch itself reads tensors so."""
    for index, place in located.items():
        facts = place.fields() if isinstance(place, _StandIn) else {}
        file, start, length = (facts.get(key) for key in ("relative_path", "offset", "length"))
        if not isinstance(file, str) or not isinstance(start, int) or not isinstance(length, int):
            raise CheckpointError(f"{folder / METADATA} does not say where a value lies; copy the checkpoint again")
        if Path(file).name != file or file in ("", ".", ".."):
            raise CheckpointError(
                f"{folder / METADATA} points to '{file[:80]}', outside its folder; nothing of it was read; get the "
                "checkpoint from where it was trained"
            )
        if isinstance(index, _StandIn) and index.fields().get("offset") is None:  # no tensor's chunk
            _check_value(folder / file, start, length)


def _check_value(path: Path, start: int, length: int) -> None:
    try:
        with open_plain(path) as file:
            file.seek(start)
            torch.load(io.BytesIO(file.read(min(length, MOST_METADATA))), map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} holds a value that cannot be read as plain data ({type(error).__name__}: {reason}); nothing of it "
            f"was run; {_REMEDY}"
        ) from error


def check_engine_files(folder: Path) -> None:
    """Refuse a DeepSpeed checkpoint whose files name more than tensors and DeepSpeed's own settings.

    Raises:
        CheckpointError: one does, or is damaged; nothing of it was run.
    """
    for path in sorted(folder.glob("global_step*/*.pt")):
        try:
            named = set(torch.serialization.get_unsafe_globals_in_checkpoint(str(path))) - _DEEPSPEED
        except Exception as error:  # torch raises whatever its unpickler meets
            raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {error}); {_REMEDY}") from error
        if named:
            raise _refused(path, RefusedPickleError(f"names {min(named)[:100]!r}"))


def _refused(path: Path, error: RefusedPickleError) -> CheckpointError:
    return CheckpointError(
        f"{path}: refused: it {error}; nothing of it was run; get the checkpoint from where it was trained"
    )
