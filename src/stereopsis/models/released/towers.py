"""The vision tower in the official code's terms: a name that it knows, or a folder beside the weights that tells."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import SiglipVisionConfig

from stereopsis.errors import CheckpointError
from stereopsis.reading import read_json
from stereopsis.weights import write_json

Shapes = Mapping[str, tuple[int, ...]]
TOWER = "model.vision_tower.vision_tower.vision_model"
SO400M = "google/siglip-so400m-patch14-384"
TOWER_FOLDER = "siglip_tower"
"""Folder of a checkpoint that holds the config.json of a tower with no known name."""
_KNOWN = {
    "siglip-so400m-patch14-384": {"num_attention_heads": 16, "image_size": 384, "num_hidden_layers": 27},
}
_SO400M_SIZES = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}


def unused_layer(config: Mapping[str, Any], folder: Path, names: Iterable[str]) -> str | None:
    """Prefix of the tower's last layer, which the official code deletes, where a checkpoint still holds it."""
    depth = _facts(config, folder).get("num_hidden_layers")
    last = f"{TOWER}.encoder.layers.{depth - 1}." if depth else None
    return last if last and any(name.startswith(last) for name in names) else None


def tower_config(config: Mapping[str, Any], folder: Path, shapes: Shapes) -> SiglipVisionConfig:
    """SigLIP's configuration: sizes from the weights, heads and image size from its own config or a known name.

    Args:
        config: the official config.json.
        folder: the checkpoint's.
        shapes: of the official weights that are used, by name.

    Raises:
        CheckpointError: the tower is not known, is no SigLIP, or lacks layers.
    """
    name = str(config["mm_vision_tower"])
    facts = _facts(config, folder)
    known = {key: value for key, value in facts.items() if key != "num_hidden_layers"}
    if len(known) < 2:
        if "siglip" not in name.lower():
            raise CheckpointError(
                f"the vision tower '{name}' is not known; the released models look through SigLIP, and only such "
                "towers can be converted: give vision_tower the folder of the SigLIP model where it is one"
            )
        raise CheckpointError(
            f"the vision tower '{name}' is not known, and no folder of that name holds its config.json; give "
            "vision_tower the folder of the SigLIP model, whose config.json tells heads and image size"
        )
    prefix = f"{TOWER}.encoder.layers."
    layers = sorted({int(key.removeprefix(prefix).split(".")[0]) for key in shapes if key.startswith(prefix)})
    try:
        width, _, patch, _ = shapes[f"{TOWER}.embeddings.patch_embedding.weight"]
        inner = shapes[f"{prefix}0.mlp.fc1.weight"][0]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"the checkpoint lacks the vision tower's weight {error}; releases without the tower cannot be converted "
            "alone: add its weights under the official names"
        ) from error
    expected = facts["num_hidden_layers"] - 1 if "num_hidden_layers" in facts else len(layers)
    if layers != list(range(expected)):
        raise CheckpointError(
            f"the vision tower '{name}' has {len(layers)} layers in this checkpoint, expected {expected} (all but the "
            "last one, which the official code deletes); it belongs to another tower, or a shard is missing"
        )
    return SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=len(layers),
        patch_size=patch,
        vision_use_head=False,
        **known,
    )


def write_tower(config: Mapping[str, Any], vision: Mapping[str, Any], target: Path) -> str:
    """What ``mm_vision_tower`` of a written checkpoint says; a tower with no known name gets a folder there.

    Args:
        config: the official config.json so far.
        vision: Hugging Face's configuration of the tower.
        target: the checkpoint's folder.
    """
    if all(vision.get(key) == value for key, value in _SO400M_SIZES.items()):
        name = str(config.get("mm_vision_tower", ""))
        return name if any(key in name for key in _KNOWN) else SO400M
    (target / TOWER_FOLDER).mkdir()
    layers = int(vision["num_hidden_layers"]) + 1  # the official code deletes the last one
    write_json(
        target / TOWER_FOLDER / "config.json",
        {"model_type": "siglip", "vision_config": {**vision, "num_hidden_layers": layers}},
    )
    return TOWER_FOLDER


def _facts(config: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """What the tower's own config.json says, or what is known of one of its name; empty where neither is at hand."""
    name = str(config["mm_vision_tower"])
    own = next((path for path in (folder / name / "config.json", Path(name) / "config.json") if path.is_file()), None)
    if own is None:
        return next((facts for key, facts in _KNOWN.items() if key in name), {})
    try:
        read = read_json(own)
        read = read.get("vision_config", read)
        keys = ("num_attention_heads", "image_size", "num_hidden_layers")
        return {key: int(read[key]) for key in keys if key in read}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{own}: unreadable ({error}); expected the config.json of a SigLIP model") from error
