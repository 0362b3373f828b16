"""Tiny random models of every family, made from the families' own configuration classes."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from stereopsis.models.families import FAMILIES
from stereopsis.models.spatial import SpatialConfig, SpatialModel
from stereopsis.models.tiny import build_tokenizer

WORDS = ["where is the red chair? on the table", "the blue lamp beside the bed", "how many chairs? two"] * 3
MARKS = ("<img>", "</img>", "<vision_start>", "<vision_end>", "\n\n", "<fake_token_around_image>", "<global-img>")
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 4096,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}


def family_tokenizer():
    """One small tokenizer with every family's marks."""
    tokenizer = build_tokenizer(WORDS, 320)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)}, replace_extra_special_tokens=False)
    return tokenizer


def _ids(tokenizer) -> dict[str, int]:
    return {
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<pad>"),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<vision_start>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("<vision_end>"),
    }


def _siglip(side: int) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": side,
        "patch_size": 4,
        "vision_use_head": False,
    }


def _llava(text: dict[str, Any], tokenizer) -> Any:
    return LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=_siglip(24),
            text_config={"model_type": "qwen2", **text},
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
            image_grid_pinpoints=[[24, 24]],
            **{k: v for k, v in _ids(tokenizer).items() if k in ("image_token_id", "video_token_id")},
        )
    )


def _qwen(model: type, config: type, vision: dict[str, Any]) -> Callable[[dict[str, Any], Any], Any]:
    def build(text: dict[str, Any], tokenizer) -> Any:
        shared = {"depth": 3, "num_heads": 4, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
        settings = config(
            vision_config={**shared, **vision}, text_config={**text, "rope_parameters": ROPE}, **_ids(tokenizer)
        )
        return model(settings)

    return build


def _internvl(text: dict[str, Any], tokenizer) -> Any:
    return InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "image_size": [24, 24],
                "patch_size": [4, 4],
            },
            text_config={"model_type": "qwen2", **text},
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        )
    )


def _gemma3(text: dict[str, Any], tokenizer) -> Any:
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(
            vision_config=_siglip(24),
            text_config={
                **text,
                "sliding_window": 16,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            },
            mm_tokens_per_image=9,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            boi_token_index=tokenizer.convert_tokens_to_ids("<img>"),
            eoi_token_index=tokenizer.convert_tokens_to_ids("</img>"),
        )
    )
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.2)  # released at zero
    return model


def _smolvlm(text: dict[str, Any], tokenizer) -> Any:
    vision = {k: v for k, v in _siglip(24).items() if k not in ("model_type", "vision_use_head")}
    return SmolVLMForConditionalGeneration(
        SmolVLMConfig(
            vision_config=vision,
            text_config={"model_type": "llama", **text},
            scale_factor=2,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        )
    )


BUILDERS: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "llava_onevision": _llava,
    "qwen2_vl": _qwen(Qwen2VLForConditionalGeneration, Qwen2VLConfig, {"embed_dim": 32, "hidden_size": 48}),
    "qwen2_5_vl": _qwen(
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLConfig,
        {
            "hidden_size": 32,
            "out_hidden_size": 48,
            "intermediate_size": 48,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
    ),
    "qwen3_vl": _qwen(
        Qwen3VLForConditionalGeneration,
        Qwen3VLConfig,
        {
            "hidden_size": 32,
            "out_hidden_size": 48,
            "intermediate_size": 48,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
    ),
    "internvl": _internvl,
    "gemma3": _gemma3,
    "smolvlm": _smolvlm,
}


def tiny_backbone(family: str, tokenizer) -> Any:
    """A random model of about 100 000 parameters; views of 24 x 24 pixels become 3 x 3 tokens."""
    torch.manual_seed(0)
    text = {
        **TEXT,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    model = BUILDERS[family](text, tokenizer).eval()
    model.set_attn_implementation("sdpa")
    with torch.no_grad():  # published models are far from their small random start: let differences show
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.mul_(3.0)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model


def tiny_model(family: str, tokenizer=None, *, objectives=None, grid: int = 3, **config) -> SpatialModel:
    """A `SpatialModel` around it."""
    tokenizer = tokenizer or family_tokenizer()
    backbone = tiny_backbone(family, tokenizer)
    torch.manual_seed(1)
    return SpatialModel(
        backbone=backbone,
        adapter=FAMILIES[family](backbone, (grid, grid)),
        tokenizer=tokenizer,
        config=SpatialConfig(family=family, view_grid=(grid, grid), **config),
        objectives=objectives,
    ).eval()
