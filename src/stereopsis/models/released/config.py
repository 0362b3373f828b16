"""The official code's config.json (``llava_qwen``) and Hugging Face's, each made from the other and the weights."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

from stereopsis.errors import CheckpointError
from stereopsis.models.grounding import TEMPERATURE
from stereopsis.models.position import MAXIMUM, MINIMUM, STEP

Shapes = Mapping[str, tuple[int, ...]]
INSTRUCTION = (
    "The video captures 3D spatial information of a scene. Please focus on the spatial relationships in the video and "
    "answer the following questions."
)
"""Video-3D-LLM's words before every question."""

_TOWER = "model.vision_tower.vision_tower.vision_model"
_KNOWN_TOWERS = {
    "siglip-so400m-patch14-384": {"num_attention_heads": 16, "image_size": 384, "num_hidden_layers": 27},
}
_SWITCHES: dict[str, Callable[[Any], bool]] = {
    "world_position_embedding_type": lambda kind: all(word in kind for word in ("avg", "discrete", "sin3d")),
    "object_feature_type": lambda kind: "patch14" in kind,
    "ground_head_type": lambda kind: kind == "infonce",
    "ground_head_temperature": lambda value: value == TEMPERATURE,
    "voxel_size": lambda value: value == STEP,
    "min_xyz_range": lambda values: tuple(values) == MINIMUM,
    "max_xyz_range": lambda values: tuple(values) == MAXIMUM,
}
"""Keys of config.json that change the official forward pass, and whether a value is the one that was released."""
_TEXT = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "hidden_act",
    "attention_dropout",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
)


def read_config(folder: Path) -> dict[str, Any]:
    """The official config.json.

    Raises:
        CheckpointError: there is none, or it is another model's.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: unreadable ({error}); expected the official code's config.json") from error
    needed = ("hidden_size", "num_attention_heads", "num_hidden_layers", "mm_vision_tower")
    lacking = [key for key in needed if key not in config] if isinstance(config, dict) else list(needed)
    if lacking:
        raise CheckpointError(
            f"{path} is not the config.json of LLaVA-Video, Video-3D-LLM, Ross3D or 3DRS: it lacks {', '.join(lacking)}"
            "; a Hugging Face folder needs no conversion"
        )
    other = [f"{key} {config[key]!r}" for key, same in _SWITCHES.items() if config.get(key) and not same(config[key])]
    if other:
        raise CheckpointError(
            f"{path} is of a variant whose forward pass is another one: {'; '.join(other)}; the released models, which "
            "can be converted, average discrete coordinates (avg-discrete-sin3d, 0.1 m), gather patch14 object "
            "features and ground with infonce"
        )
    return config


def unused_layer(config: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Prefix of the tower's last layer, which the official code deletes, where a checkpoint still holds it."""
    depth = _tower_facts(config).get("num_hidden_layers")
    last = f"{_TOWER}.encoder.layers.{depth - 1}." if depth else None
    return last if last and any(name.startswith(last) for name in names) else None


def huggingface_config(config: Mapping[str, Any], shapes: Shapes, image_token_id: int, vocabulary: int) -> Any:
    """`LlavaOnevisionConfig` of an official checkpoint.

    Args:
        config: the official config.json.
        shapes: of the official weights, by name.
        image_token_id: the id that placeholders get.
        vocabulary: rows of the embedding table.

    Raises:
        CheckpointError: the vision tower cannot be told from config and weights.
    """
    text = {key: config[key] for key in _TEXT if key in config}
    if config.get("rope_scaling"):
        text["rope_scaling"] = config["rope_scaling"]
    tied = "lm_head.weight" not in shapes
    return LlavaOnevisionConfig(
        text_config=Qwen2Config(**text, vocab_size=vocabulary, tie_word_embeddings=tied).to_dict(),
        vision_config=_tower(config, shapes).to_dict(),
        image_token_id=image_token_id,
        video_token_id=image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[_tower(config, shapes).image_size] * 2],
        tie_word_embeddings=tied,
    )


def view_grid(config: Mapping[str, Any], encoder_side: int) -> tuple[int, int]:
    """Tokens of a view: the encoder's grid over the pooling stride, rounded up (27 to 14)."""
    side = math.ceil(encoder_side / int(config.get("mm_spatial_pool_stride") or 2))  # null in the releases: 2
    return side, side


def released_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """An official config.json for a Hugging Face one, as far as the official code reads it."""
    text, vision = config["text_config"], config["vision_config"]
    rope = text.get("rope_parameters") or {}
    kept = {key: text[key] for key in _TEXT if key in text}
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        **kept,
        "rope_theta": rope.get("rope_theta", text.get("rope_theta", 1000000.0)),
        "vocab_size": text["vocab_size"],
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
        "mm_hidden_size": vision["hidden_size"],
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_spatial_pool_mode": "bilinear",
        "mm_spatial_pool_stride": 2,
        "mm_newline_position": "grid",
        "mm_patch_merge_type": "spatial_unpad",
    }


def _tower(config: Mapping[str, Any], shapes: Shapes) -> Any:
    """SigLIP's configuration: sizes from the weights, heads and image size from its own config or a known name."""
    known = {key: value for key, value in _tower_facts(config).items() if key != "num_hidden_layers"}
    if len(known) < 2:
        raise CheckpointError(
            f"the vision tower '{config['mm_vision_tower']}' is not known, and no folder of that name holds its "
            "config.json; give vision_tower the folder of the SigLIP model, whose config.json tells heads and image "
            "size"
        )
    layers = {
        name.split(".layers.")[1].split(".")[0] for name in shapes if name.startswith(f"{_TOWER}.encoder.layers.")
    }
    try:
        width, _, patch, _ = shapes[f"{_TOWER}.embeddings.patch_embedding.weight"]
        inner = shapes[f"{_TOWER}.encoder.layers.0.mlp.fc1.weight"][0]
    except KeyError as error:
        raise CheckpointError(
            f"the checkpoint lacks the vision tower's weight {error}; releases without the tower cannot be converted "
            "alone: add its weights under the official names"
        ) from error
    return SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=len(layers),
        patch_size=patch,
        vision_use_head=False,
        **known,
    )


def _tower_facts(config: Mapping[str, Any]) -> dict[str, int]:
    """What the tower's own config.json says, or what is known of one of its name; empty where neither is at hand."""
    name = str(config["mm_vision_tower"])
    own = Path(name) / "config.json"
    if not own.is_file():
        return next((facts for key, facts in _KNOWN_TOWERS.items() if key in name), {})
    read = json.loads(own.read_text())
    read = read.get("vision_config", read)
    return {key: read[key] for key in ("num_attention_heads", "image_size", "num_hidden_layers") if key in read}
