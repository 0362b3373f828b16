"""The official code's config.json (``llava_qwen``) and Hugging Face's, each made from the other and the weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import LlavaOnevisionConfig, Qwen2Config

from stereopsis.annotations import COORD_TOKEN, GROUND_TOKEN
from stereopsis.errors import CheckpointError
from stereopsis.models.grounding import TEMPERATURE
from stereopsis.models.position import MAXIMUM, MINIMUM, STEP
from stereopsis.models.released.towers import Shapes, tower_config
from stereopsis.reading import read_json
from stereopsis.weights.mistaken import what_it_is

INSTRUCTION = (
    "The video captures 3D spatial information of a scene. Please focus on the spatial relationships in the video and "
    "answer the following questions."
)
"""Video-3D-LLM's words before every question."""

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
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: unreadable ({error}); expected the official code's config.json{what_it_is(path)}"
        ) from error
    needed = ("hidden_size", "num_attention_heads", "num_hidden_layers", "mm_vision_tower")
    lacking = [key for key in needed if key not in config] if isinstance(config, dict) else list(needed)
    if lacking:
        raise CheckpointError(
            f"{path} is not the config.json of LLaVA-Video, Video-3D-LLM, Ross3D or 3DRS: it lacks {', '.join(lacking)}"
            "; a Hugging Face folder needs no conversion"
        )
    return config


def huggingface_config(
    config: Mapping[str, Any], folder: Path, shapes: Shapes, image_token_id: int, vocabulary: int
) -> Any:
    """`LlavaOnevisionConfig` of an official checkpoint.

    Args:
        config: the official config.json.
        folder: the checkpoint's.
        shapes: of the official weights, by name.
        image_token_id: the id that placeholders get.
        vocabulary: rows of the embedding table.

    Raises:
        CheckpointError: the vision tower cannot be told from config and weights.
    """
    text = {key: config[key] for key in _TEXT if key in config}  # the official code clears rope_scaling, if any
    tied, tower = bool(config.get("tie_word_embeddings")), tower_config(config, folder, shapes)
    return LlavaOnevisionConfig(
        text_config=Qwen2Config(**text, vocab_size=vocabulary, tie_word_embeddings=tied).to_dict(),
        vision_config=tower.to_dict(),
        image_token_id=image_token_id,
        video_token_id=image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[tower.image_size] * 2],
        tie_word_embeddings=tied,
    )


def view_grid(encoder_side: int) -> tuple[int, int]:
    """Tokens of a view: half the encoder's grid, rounded up (27 to 14); the official code knows no other stride."""
    side = math.ceil(encoder_side / 2)
    return side, side


def released_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """An official config.json for a Hugging Face one, as far as the official code reads it; the tower comes later."""
    text, vision = config["text_config"], config["vision_config"]
    rope = text.get("rope_parameters") or {}
    kept = {key: text[key] for key in _TEXT if key in text}
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        **kept,
        "rope_theta": rope.get("rope_theta", text.get("rope_theta", 1000000.0)),
        "mm_hidden_size": vision["hidden_size"],
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_spatial_pool_mode": "bilinear",
        "mm_spatial_pool_stride": 2,
        "mm_newline_position": "grid",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
    }


def head_settings(tokenizer: Any, positions: str) -> dict[str, Any]:
    """What the official code's config.json says where a model has a grounding head.

    Args:
        tokenizer: with <ground> and <coord>.
        positions: where visual tokens get their 3D encoding from; without any the official code adds none.
    """
    encoding = {"world_position_embedding_type": "avg-discrete-sin3d"} if positions != "none" else {}
    return {
        "ground_head_type": "infonce",
        "ground_head_temperature": TEMPERATURE,
        "object_feature_type": "patch14-pe",
        "voxel_size": STEP,
        "min_xyz_range": list(MINIMUM),
        "max_xyz_range": list(MAXIMUM),
        "ground_token_ids": [tokenizer.convert_tokens_to_ids(GROUND_TOKEN)],
        "coord_token_ids": [tokenizer.convert_tokens_to_ids(COORD_TOKEN)],
        **encoding,
    }


def unlike_released(record: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """What of a model's settings the official forward pass has no counterpart for, in words.

    Args:
        record: the model's spatial_config.json.
        config: its Hugging Face config.json.
    """
    vision = config["vision_config"]
    grid = view_grid(vision["image_size"] // vision["patch_size"])
    found = []
    if tuple(record.get("view_grid", grid)) != grid:
        found.append(f"view_grid {list(record['view_grid'])} (there: {list(grid)}, half the tower's)")
    if record.get("encoding_scale", 1.0) != 1.0:
        found.append(f"encoding_scale {record['encoding_scale']} (there: 1)")
    if record.get("object_features", "encoder") == "last_layer":
        found.append("object_features 'last_layer' (there: encoder tokens, or 3DRS's mean)")
    if config.get("vision_feature_layer", -1) != -1:
        found.append(f"vision_feature_layer {config['vision_feature_layer']} (there: the last that is kept)")
    return found
