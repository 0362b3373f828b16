"""A laptop-sized LLaVA-OneVision: real architecture, own tokenizer, small enough to train on two CPU cores."""

import dataclasses
from collections.abc import Iterable

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from stereopsis.annotations import COORD_TOKEN, GROUND_TOKEN

PAD, END, IMAGE = "<pad>", "<end>", "<image>"
CHAT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}\n> "
    "{% else %}{{ m['content'] }}<end>{% endif %}{% endfor %}"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Sizes of the small model: 96-pixel views, 12x12 encoder cells pooled to 6x6 tokens."""

    image_size: int = 96
    patch_size: int = 8
    vision_dim: int = 192
    vision_layers: int = 5
    vision_heads: int = 6
    dim: int = 192
    layers: int = 5
    heads: int = 6
    mlp: int = 512
    vocabulary: int = 1024


def build_tokenizer(texts: Iterable[str], vocabulary: int, phrases: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the rooms' language.

    Args:
        texts: what to train on.
        vocabulary: size before the phrases.
        phrases: fixed wording that becomes one token each, with the blanks before it: the benchmarks' instructions
            would otherwise be a third of all that so small a model reads.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, IMAGE, COORD_TOKEN, GROUND_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(phrase, lstrip=True, normalized=False) for phrase in phrases])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[IMAGE, COORD_TOKEN, GROUND_TOKEN],
        chat_template=CHAT,
        clean_up_tokenization_spaces=False,
    )


def build_tiny_backbone(
    tokenizer: PreTrainedTokenizerFast, config: TinyConfig | None = None
) -> LlavaOnevisionForConditionalGeneration:
    """A randomly initialised small backbone whose embeddings match the tokenizer.

    Residual outputs start small and embeddings at unit scale, without which so small a model sits at the
    language prior for long.
    """
    config = config or TinyConfig()
    vision = SiglipVisionConfig(
        hidden_size=config.vision_dim,
        intermediate_size=4 * config.vision_dim,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=config.vision_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.dim,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    backbone = LlavaOnevisionForConditionalGeneration._from_config(
        LlavaOnevisionConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
            video_token_id=tokenizer.convert_tokens_to_ids(PAD),
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
            image_grid_pinpoints=[[config.image_size, config.image_size]],
            tie_word_embeddings=True,
        ),
        attn_implementation="eager",
    )
    _initialise(backbone, config)
    return backbone


def _initialise(backbone: LlavaOnevisionForConditionalGeneration, config: TinyConfig) -> None:
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Linear) and module is not backbone.lm_head:
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if name.endswith(("o_proj", "down_proj", "out_proj", "fc2")):
                depth = config.layers if "language_model" in name else config.vision_layers
                with torch.no_grad():
                    module.weight *= 0.5 * depth**-0.5
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(backbone.get_input_embeddings().weight, std=0.25)
