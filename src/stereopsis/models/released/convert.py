"""Official checkpoints into model folders of this package, and back, a tensor at a time."""

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from stereopsis.annotations import COORD_TOKEN, GROUND_TOKEN
from stereopsis.errors import CheckpointError, RunFolderError
from stereopsis.model_files import CONFIG_FILE, HEADS_FILE, RELEASED_CONFIG, SPATIAL_FILE
from stereopsis.models.released.adapters import (
    ADAPTER_CONFIG,
    adapted_shards,
    base_folder,
    has_adapters,
    tokenizer_folder,
)
from stereopsis.models.released.config import (
    INSTRUCTION,
    head_settings,
    huggingface_config,
    read_config,
    released_config,
    unlike_released,
    view_grid,
)
from stereopsis.models.released.keys import Destination, Kind, Part, kind_of, our_name, released_name
from stereopsis.models.released.refusals import check_finite, check_settings, check_values, check_weights
from stereopsis.models.released.towers import SO400M, TOWER_FOLDER, unused_layer, write_tower
from stereopsis.models.spatial import SpatialConfig
from stereopsis.models.storage import GROUNDING_KEY, SCHEMA
from stereopsis.reading import read_json
from stereopsis.weights import SHARD_BYTES, Shard, ShardWriter, Spec, TensorFileWriter, shards_of, write_json
from stereopsis.weights.manifest import write_manifest
from stereopsis.weights.mistaken import strange_prefix, what_it_is
from stereopsis.weights.pretrained import open_pretrained

IMAGE_TOKEN = "<image>"
_HEAD = "lm_head.weight"
_TABLES = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
_POST_NORM = ("vision_tower.post_layernorm.weight", "vision_tower.post_layernorm.bias")
_CROPPED = "crop"
_SQUASHED = "squash"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converted:
    """What a conversion did.

    Attributes:
        kind: which official model.
        backbone: number of backbone weights.
        grounding: number of grounding-head weights.
        heads: number of training-head weights.
        dropped: official weights that nothing uses, by name.
        added: names of weights or rows that the source lacks and the target needs, with what they were set to.
        notes: what was taken for granted, or differs in the official code's own lines.
    """

    kind: Kind
    backbone: int = 0
    grounding: int = 0
    heads: int = 0
    dropped: tuple[str, ...] = ()
    added: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def convert_from_released(
    source: str | Path,
    target: str | Path,
    *,
    vision_tower: str | Path | None = None,
    base: str | Path | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Converted:
    """Make a model folder of this package (which plain transformers can open) from an official checkpoint.

    Every weight is accounted for. Memory holds a tensor at a time (and the mapped pages of one .bin file).

    Args:
        source: the official folder: config.json, tokenizer, weights in .safetensors or .bin, sharded or not; or the
            adapters that LLaVA's training leaves, which are merged into ``base``.
        target: the folder to make.
        vision_tower: folder of the SigLIP model, where the config's ``mm_vision_tower`` is no known name.
        base: of adapters: the official folder that they were trained on; None: the one that they name.
        shard_bytes: size of the output's shards.

    Raises:
        CheckpointError: a file is unreadable, a weight is unknown, missing or not finite, the forward pass another one
            than released, or the vision tower not known.
        RunFolderError: the target is not empty.
    """
    source, target = Path(source), Path(target)
    adapted = has_adapters(source)
    folders = [source, base_folder(source, None if base is None else Path(base))] if adapted else [source]
    if base is not None and not adapted:
        raise CheckpointError(f"{source} holds no adapters (no {ADAPTER_CONFIG}), so it needs no --base; leave it out")
    own = next((folder for folder in folders if (folder / "config.json").is_file()), source)
    config = read_config(own) | ({} if vision_tower is None else {"mm_vision_tower": str(vision_tower)})
    notes = check_settings(config, own / "config.json")
    shards = adapted_shards(*folders) if adapted else shards_of(source)
    specs = {name: spec for shard in shards for name, spec in shard.specs().items()}
    destinations = _destinations(config, own, specs)
    kind = kind_of(destinations)
    shapes = {name: spec.shape for name, spec in specs.items() if destinations[name].part != "dropped"}
    check_values(shapes)
    tokenizer, image_token_id = _tokenizer(tokenizer_folder(folders), config)
    rows = max(shapes["model.embed_tokens.weight"][0], len(tokenizer)) if "model.embed_tokens.weight" in shapes else 0
    settings = huggingface_config(config, own, shapes, image_token_id, rows)
    check_weights(settings, config, ((destinations[name], spec) for name, spec in specs.items()))
    if settings.tie_word_embeddings and _HEAD in destinations:
        destinations[_HEAD] = Destination(part="dropped")
        _same_tables(shards)
    _empty(target)
    plan = _planned(
        ((destinations[name], spec) for name, spec in specs.items()), rows, settings.vision_config.hidden_size
    )
    with _writing(target, plan.specs, shard_bytes) as writers:
        for name, tensor in _all(shards):
            destination = destinations[name]
            if destination.part != "dropped":
                check_finite(name, tensor)
                grown = destination.name in plan.added and destination.part == "backbone"
                writers[destination.part].add(destination.name, _with_rows(tensor, rows) if grown else tensor)
        for name in _POST_NORM:
            if name in plan.added:
                spec = plan.specs["backbone"][name]
                writers["backbone"].add(name, torch.full(spec.shape, float(name.endswith("weight")), dtype=spec.dtype))
    tokenizer.save_pretrained(target)
    settings.architectures = ["LlavaOnevisionForConditionalGeneration"]
    settings.save_pretrained(target)
    record = _spatial_record(kind, config, settings) | {GROUNDING_KEY: (target / SPATIAL_FILE).is_file()}
    write_json(target / CONFIG_FILE, record)
    write_json(target / RELEASED_CONFIG, {**config, "converted_from": kind})
    write_manifest(target)
    dropped = tuple(name for name, destination in destinations.items() if destination.part == "dropped")
    return _report(kind, [destination.part for destination in destinations.values()], dropped, plan.added, notes)


def convert_to_released(source: str | Path, target: str | Path, *, shard_bytes: int = SHARD_BYTES) -> Converted:
    """Write a model folder of the LLaVA-OneVision family as the official code reads it.

    Its config.json has what the official code builds the heads and the tower from: as it was where the model (or the
    base that it was trained from) had been converted, else as the released models have it.

    Raises:
        CheckpointError: a weight or a setting has no counterpart there.
        RunFolderError: the target is not empty.
    """
    source, target = Path(source), Path(target)
    shards: list[tuple[Shard, Part]] = [(shard, "backbone") for shard in shards_of(source)]
    parts: tuple[tuple[Part, str], ...] = (("grounding", SPATIAL_FILE), ("heads", HEADS_FILE))
    for part, file in parts:
        if (source / file).is_file():
            shards += [(shard, part) for shard in shards_of(source / file)]
    destinations = {(part, name): released_name(part, name) for shard, part in shards for name in shard.names}
    specs = {destinations[part, name]: spec for shard, part in shards for name, spec in shard.specs().items()}
    own = _json(source / "config.json")
    record = _json(source / CONFIG_FILE) if (source / CONFIG_FILE).is_file() else {}
    other = unlike_released(record, own)
    if other:
        raise CheckpointError(
            f"{source} computes what the official code cannot: {'; '.join(other)}; written in its form it would "
            "silently compute something else"
        )
    _empty(target)
    with _writing(target, {"backbone": specs}, shard_bytes) as writers:
        for shard, part in shards:
            for name, tensor in shard.tensors():
                check_finite(name, tensor)
                writers["backbone"].add(destinations[part, name], tensor)
    tokenizer = open_pretrained(AutoTokenizer, source)
    tokenizer.save_pretrained(target)
    config = _json(source / RELEASED_CONFIG) if (source / RELEASED_CONFIG).is_file() else released_config(own)
    config.pop("converted_from", None)
    if any(part == "grounding" for part, _ in destinations):
        config = head_settings(tokenizer, str(record.get("positions", "depth"))) | config
    config |= {
        "vocab_size": specs["model.embed_tokens.weight"].shape[0],
        "tie_word_embeddings": _HEAD not in specs,
        "mm_vision_tower": write_tower(config, own["vision_config"], target),
    }
    if record:
        config["stereopsis"] = {key: value for key, value in record.items() if key != "schema"}
    write_json(target / "config.json", config)
    kind = kind_of(destinations.values())
    return _report(kind, [part for part, _ in destinations], notes=_unlike_by_code(kind, record, config))


def _unlike_by_code(kind: Kind, record: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, ...]:
    """What the official code decides in its own lines, where a model was trained otherwise."""
    notes = []
    if record.get("instruction", INSTRUCTION) != INSTRUCTION:
        notes.append(f"the official code puts its own words before every question, not '{record['instruction']}'")
    fit = _SQUASHED if kind == "3drs" else _CROPPED
    if record.get("fit", fit) != fit:
        notes.append(f"the official code of {kind} brings images to size by '{fit}', this model by '{record['fit']}'")
    if config["mm_vision_tower"] == TOWER_FOLDER:
        notes.append(
            f"the tower is not {SO400M}, the only one that the official code reads; its sizes are in {TOWER_FOLDER}/"
        )
    return tuple(notes)


def _report(
    kind: Kind,
    parts: list[str],
    dropped: tuple[str, ...] = (),
    added: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
) -> Converted:
    return Converted(
        kind=kind,
        backbone=parts.count("backbone"),
        grounding=parts.count("grounding"),
        heads=parts.count("heads"),
        dropped=dropped,
        added=added or {},
        notes=notes,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plan:
    """What will be written: specs by part and name; which of the backbone's are not as they were found, and why."""

    specs: Mapping[str, Mapping[str, Spec]]
    added: Mapping[str, str]


def _destinations(config: Mapping[str, Any], folder: Path, names: Iterable[str]) -> dict[str, Destination]:
    """Where each official weight belongs; a last tower layer that the official code deletes goes nowhere."""
    names = list(names)
    why = strange_prefix(names)
    if why:
        raise CheckpointError(f"{folder}: {why}")
    destinations = {name: our_name(name) for name in names}
    spare = unused_layer(config, folder, names)
    if spare is not None:
        destinations |= {name: Destination(part="dropped") for name in names if name.startswith(spare)}
    return destinations


def _same_tables(shards: Iterable[Shard]) -> None:
    """Refuse an output layer that config.json ties to the embeddings where the two differ.

    Raises:
        CheckpointError: they do; the official code would forget the output layer.
    """
    tables = dict(pair for shard in shards for pair in shard.tensors(("model.embed_tokens.weight", _HEAD).__contains__))
    if not torch.equal(*tables.values()):
        raise CheckpointError(
            "config.json ties the output layer to the embeddings (tie_word_embeddings), but lm_head.weight is another "
            "table; say 'tie_word_embeddings: false' where it was trained apart"
        )


def _planned(found: Iterable[tuple[Destination, Spec]], rows: int, tower_width: int) -> _Plan:
    """Lay out the target: tables get rows for new tokens, a tower without its unused norm gets the identity."""
    specs: dict[str, dict[str, Spec]] = {"backbone": {}, "grounding": {}, "heads": {}}
    added: dict[str, str] = {}
    for destination, spec in found:
        if destination.part == "dropped":
            continue
        if destination.part == "backbone" and destination.name in _TABLES and spec.shape[0] < rows:
            added[destination.name] = f"{rows - spec.shape[0]} rows for new tokens, set to the mean of the others"
            spec = Spec(dtype=spec.dtype, shape=(rows, *spec.shape[1:]))
        specs[destination.part][destination.name] = spec
    for name in _POST_NORM:
        if name not in specs["backbone"]:
            specs["backbone"][name] = Spec(dtype=torch.float32, shape=(tower_width,))
            added[name] = "the identity; the released models do not apply this norm"
    return _Plan(specs=specs, added=added)


def _with_rows(table: Tensor, rows: int) -> Tensor:
    """The table with rows for new tokens; the mean is taken a piece at a time, for the sake of memory."""
    mean = torch.stack([piece.double().sum(0) for piece in table.split(4096)]).sum(0) / len(table)
    return torch.cat([table, mean.to(table.dtype).expand(rows - len(table), -1)])


@contextlib.contextmanager
def _writing(
    target: Path, specs: Mapping[str, Mapping[str, Spec]], limit: int
) -> Iterator[dict[str, ShardWriter | TensorFileWriter]]:
    """Writers by part, for those that have weights; their files stay only if all goes well."""
    target.mkdir(parents=True, exist_ok=True)
    writers: dict[str, ShardWriter | TensorFileWriter] = {}
    try:
        writers["backbone"] = ShardWriter(target, specs["backbone"], limit)
        for part, file in (("grounding", SPATIAL_FILE), ("heads", HEADS_FILE)):
            if specs.get(part):
                writers[part] = TensorFileWriter(target / file, specs[part])
        yield writers
        for writer in writers.values():
            writer.close()
    except BaseException:
        for writer in writers.values():
            writer.abandon()
        raise


def _all(shards: Iterable[Shard]) -> Iterator[tuple[str, Tensor]]:
    for shard in shards:
        yield from shard.tensors()


def _tokenizer(source: Path, config: Mapping[str, Any]) -> tuple[Any, int]:
    """The tokenizer with <image>, <coord> and <ground>, and the id of the first.

    Raises:
        CheckpointError: it cannot be read, or it and config.json disagree about the ids.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers looks at config.json, which has old names
        tokenizer: Any = open_pretrained(AutoTokenizer, source)
    trained = {
        token: config[key][0]
        for token, key in ((GROUND_TOKEN, "ground_token_ids"), (COORD_TOKEN, "coord_token_ids"))
        if config.get(key)
    }
    wanted = sorted((IMAGE_TOKEN, COORD_TOKEN, GROUND_TOKEN), key=lambda token: trained.get(token, math.inf))
    missing = [token for token in wanted if token not in tokenizer.get_vocab()]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    for token, trained_id in trained.items():
        if tokenizer.convert_tokens_to_ids(token) != trained_id:
            raise CheckpointError(
                f"{source}: config.json gives {token} the id {trained_id}, its tokenizer "
                f"{tokenizer.convert_tokens_to_ids(token)}; copy the tokenizer that belongs to this checkpoint"
            )
    return tokenizer, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)


def _empty(target: Path) -> None:
    if target.exists() and any(target.iterdir()):
        raise RunFolderError(f"{target} is not empty; choose another folder for the converted model")


def _spatial_record(kind: Kind, config: Mapping[str, Any], settings: Any) -> dict[str, Any]:
    """spatial_config.json; 3DRS squashes images, and its candidates are made of the last layer, too."""
    tower, known = settings.vision_config, {field.name for field in dataclasses.fields(SpatialConfig)}
    record = {
        "schema": SCHEMA,
        "family": "llava_onevision",
        "view_grid": view_grid(tower.image_size // tower.patch_size),
        "positions": "none" if kind == "llava_video" else "depth",
        "encoding_scale": 1.0,
        "fit": _SQUASHED if kind == "3drs" else _CROPPED,
        "object_features": "mean" if kind == "3drs" else "encoder",
        "instruction": INSTRUCTION,
        "train_vision": False,
    }
    given = config.get("stereopsis")  # written by `convert_to_released`
    return record | {key: value for key, value in (given or {}).items() if key in known and key != "family"}


def _json(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable ({error}); copy the model folder again{what_it_is(path)}") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} holds a {type(record).__name__}, expected an object; copy it again")
    return record
