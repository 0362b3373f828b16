"""Low-rank adapters as LLaVA's training leaves them, merged into the official checkpoint that they were trained on.

Such a folder has ``adapter_config.json``, ``adapter_model.bin`` (or .safetensors) with the adapters' matrices, and
``non_lora_trainables.bin`` with whatever else was trained: projector, embeddings, grounding head, denoiser.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from stereopsis.errors import CheckpointError
from stereopsis.reading import read_json
from stereopsis.weights import Shard, Spec, shards_of
from stereopsis.weights.mistaken import what_it_is

ADAPTER_CONFIG = "adapter_config.json"
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
OTHERS = ("non_lora_trainables.bin", "non_lora_trainables.safetensors")
_PREFIX = "base_model.model."
_REFUSED = {
    "use_dora": "weight decomposition (DoRA)",
    "alpha_pattern": "an alpha of its own for some matrices",
    "fan_in_fan_out": "transposed matrices",
    "megatron_config": "Megatron's layers",
}


def has_adapters(folder: Path) -> bool:
    """Whether a folder holds adapters, and no whole model."""
    adapted = (folder / ADAPTER_CONFIG).is_file() or any((folder / name).is_file() for name in (*ADAPTERS, *OTHERS))
    return adapted and not any(folder.glob("model*.safetensors")) and not any(folder.glob("pytorch_model*.bin"))


def base_folder(folder: Path, base: Path | None) -> Path:
    """The official checkpoint that a folder's adapters belong to.

    Raises:
        CheckpointError: it is not named, or not there.
    """
    record = _record(folder)
    named = str(record.get("base_model_name_or_path") or "an unnamed base")
    if base is None:
        base = Path(named)
        if not (base / "config.json").is_file():
            raise CheckpointError(
                f"{folder} holds low-rank adapters (rank {record.get('r')}) on '{named}', which is no folder here; "
                "name the official checkpoint that they were trained on with --base FOLDER"
            )
    if not (base / "config.json").is_file():
        raise CheckpointError(f"--base {base} is no checkpoint: it has no config.json; name the official folder")
    return base


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptedShard(Shard):
    """A file of the base whose weights come out as the adapters and their companions have them.

    Attributes:
        products: name -> the pair of matrices whose product is added.
        scale: of the product.
        replaced: name -> the tensor that takes the base's place.
    """

    products: Mapping[str, tuple[Tensor, Tensor]] = dataclasses.field(default_factory=dict)
    scale: float = 1.0
    replaced: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    def tensors(self, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, Tensor]]:
        """As `Shard.tensors`, merged."""
        for name, tensor in super().tensors(wanted):
            tensor = self.replaced[name].to(tensor.dtype) if name in self.replaced else tensor
            if name in self.products:
                down, up = self.products[name]
                tensor = (tensor.float() + self.scale * (up.float() @ down.float())).to(tensor.dtype)
            yield name, tensor

    def specs(self) -> dict[str, Spec]:
        """As `Shard.specs`, merged."""
        found = super().specs()
        grown = {n: Spec(dtype=found[n].dtype, shape=tuple(t.shape)) for n, t in self.replaced.items() if n in found}
        return {**found, **grown}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewWeights(Shard):
    """Weights that the base lacks and the adapters' folder brings.

    Attributes:
        held: name -> tensor.
    """

    held: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    def tensors(self, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, Tensor]]:
        """Those that are wanted."""
        yield from ((name, tensor) for name, tensor in self.held.items() if wanted(name))

    def specs(self) -> dict[str, Spec]:
        """Type and shape of each."""
        return {name: Spec(dtype=tensor.dtype, shape=tuple(tensor.shape)) for name, tensor in self.held.items()}


def adapted_shards(folder: Path, base: Path) -> list[Shard]:
    """The base's weight files with a folder's adapters merged, and one more for weights that the base lacks.

    Raises:
        CheckpointError: the adapters are incomplete, of a kind that is not known, or belong to another base.
    """
    record = _record(folder)
    for key, what in _REFUSED.items():
        if record.get(key):
            raise CheckpointError(
                f"{folder / ADAPTER_CONFIG}: '{key}' means {what}, which cannot be merged here; merge "
                "it with the code that trained it, and convert the whole model"
            )
    products, replaced = _sorted_out(folder)
    shards = shards_of(base)
    specs = {name: spec for shard in shards for name, spec in shard.specs().items()}
    for name, (down, up) in products.items():
        if name not in specs:
            raise CheckpointError(
                f"{folder} adapts '{name}', which the base {base} lacks; name the base that it was trained on"
            )
        shape = tuple(replaced[name].shape) if name in replaced else specs[name].shape
        if (up.shape[0], down.shape[1]) != shape or up.shape[1] != down.shape[0]:
            raise CheckpointError(
                f"{folder}: the adapter of '{name}' is {list(up.shape)} x {list(down.shape)}, the base's weight "
                f"{list(shape)}; name the base that it was trained on"
            )
    rank = next(iter(products.values()))[0].shape[0] if products else 1
    alpha = float(record.get("lora_alpha", rank))
    scale = alpha / math.sqrt(rank) if record.get("use_rslora") else alpha / rank
    made: list[Shard] = [
        AdaptedShard(
            path=shard.path,
            names=shard.names,
            products={n: products[n] for n in shard.names if n in products},
            scale=scale,
            replaced={n: replaced[n] for n in shard.names if n in replaced},
        )
        for shard in shards
    ]
    new = {name: tensor for name, tensor in replaced.items() if name not in specs}
    if new:
        made.append(NewWeights(path=folder, names=tuple(new), held=new))
    return made


def _sorted_out(folder: Path) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """The adapters' pairs by the name of their matrix, and the tensors that take another's place."""
    pairs: dict[str, dict[str, Tensor]] = {}
    replaced: dict[str, Tensor] = {}
    files = [folder / name for name in (*ADAPTERS, *OTHERS) if (folder / name).is_file()]
    if not any(file.name in ADAPTERS for file in files):
        raise CheckpointError(f"{folder} has {ADAPTER_CONFIG} but none of {', '.join(ADAPTERS)}; copy it whole")
    for shard in (shard for file in files for shard in shards_of(file)):
        for name, tensor in shard.tensors():
            plain = name.removeprefix(_PREFIX)
            matrix, mark, side = plain.partition(".lora_")
            if not mark:
                replaced[plain.replace(".modules_to_save.default.", ".")] = tensor
            elif side.split(".")[0] in ("A", "B") and side.endswith("weight"):
                pairs.setdefault(f"{matrix.removesuffix('.base_layer')}.weight", {})[side[0]] = tensor
            else:
                raise CheckpointError(
                    f"{folder}: '{name}' is no matrix of a plain low-rank adapter; merge it with the code that trained "
                    "it, and convert the whole model"
                )
    half = [name for name, pair in pairs.items() if len(pair) != 2 or 0 in (*pair["A"].shape, *pair["B"].shape)]
    if half or not pairs:
        raise CheckpointError(
            f"{folder}: {len(half)} of {len(pairs)} adapters are not whole {half[:3]} (saved under ZeRO-3 without "
            "gathering, or cut short); copy the folder again, or save it gathered"
        )
    return {name: (pair["A"], pair["B"]) for name, pair in pairs.items()}, _plain(replaced)


def _plain(replaced: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without PEFT's ``base_layer`` in the names of biases and the like."""
    return {name.replace(".base_layer.", "."): tensor for name, tensor in replaced.items()}


def _record(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: unreadable ({error}); expected PEFT's settings beside the adapters{what_it_is(path)}"
        ) from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} holds a {type(record).__name__}, expected PEFT's settings; copy it again")
    return record


def tokenizer_folder(folders: Sequence[Path]) -> Path:
    """The first folder that has a tokenizer's files, or the last one."""
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json")
    return next((f for f in folders if any((f / name).is_file() for name in names)), folders[-1])
