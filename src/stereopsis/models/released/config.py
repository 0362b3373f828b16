"""The official code's config.json (``llava_qwen``) and Hugging Face's, each made from the other and the weights."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

from stereopsis.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
INSTRUCTION = (
    "The video captures 3D spatial information of a scene. Please focus on the spatial relationships in the video and "
    "answer the following questions."
)
"""Video-3D-LLM's words before every question."""

_TOWER = "model.vision_tower.vision_tower.vision_model"
_KNOWN_TOWERS = {"siglip-so400m-patch14-384": {"num_attention_heads": 16, "image_size": 384}}
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
    return config


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
    side = math.ceil(encoder_side / int(config.get("mm_spatial_pool_stride", 2)))
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
    name = str(config["mm_vision_tower"])
    known = next((facts for key, facts in _KNOWN_TOWERS.items() if key in name), None)
    own = Path(name) / "config.json"
    if own.is_file():
        read = json.loads(own.read_text())
        read = read.get("vision_config", read)
        known = {key: read[key] for key in ("num_attention_heads", "image_size") if key in read}
    if not known or len(known) < 2:
        raise CheckpointError(
            f"the vision tower '{name}' is not known, and no folder of that name holds its config.json; give "
            "vision_tower the folder of the SigLIP model, whose config.json tells heads and image size"
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
