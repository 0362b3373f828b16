"""Small checkpoints in the exact layouts of the official releases."""

import json
from pathlib import Path
from typing import Any

import torch
from families import WORDS, family_tokenizer, tiny_backbone
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from stereopsis.objectives import Denoiser, DenoiserConfig

DIM, FEATURES = 48, 20
QWEN_CHAT = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def released_backbone() -> dict[str, torch.Tensor]:
    """A tiny LLaVA-Video in the official names, by hand from Hugging Face's."""
    model = tiny_backbone("llava_onevision", family_tokenizer())
    found = {}
    for name, value in model.state_dict().items():
        name = name.replace("model.language_model.", "model.")
        name = name.replace("model.vision_tower.", "model.vision_tower.vision_tower.vision_model.")
        name = name.replace("model.multi_modal_projector.linear_1", "model.mm_projector.0")
        name = name.replace("model.multi_modal_projector.linear_2", "model.mm_projector.2")
        found[name] = value.clone()
    return found


def ground_heads() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    found = {"ground_head_zero_target": torch.randn(DIM, generator=draw)}
    for part in ("obj", "query"):
        for layer, shape in ((0, (DIM, DIM)), (2, (DIM,)), (3, (DIM, DIM))):
            found[f"ground_head_{part}.{layer}.weight"] = torch.randn(shape, generator=draw)
            found[f"ground_head_{part}.{layer}.bias"] = torch.randn(DIM, generator=draw)
    return found


def denoiser() -> Denoiser:
    torch.manual_seed(3)
    sizes = {"width": 16, "depth": 1, "heads": 2, "view_grid": (2, 2), "birdseye_grid": (3, 3)}
    return Denoiser(DenoiserConfig(condition_dim=DIM, channels=4, **sizes))


def ross3d_parts() -> dict[str, torch.Tensor]:
    found = {f"model.mm_inv_projector.net.{k}": v.clone() for k, v in denoiser().state_dict().items()}
    return found | {
        "model.mask_token": torch.randn(DIM),
        "model.mm_pixel_decoder.encoder.conv_in.weight": torch.ones(2),
    }


def aligned_parts() -> dict[str, torch.Tensor]:
    found = {"model.corres_linear.weight": torch.ones(2, 2), "geometric_linear.bias": torch.ones(3)}
    for layer, (out, size) in {0: (2 * DIM, DIM), 2: (FEATURES, 2 * DIM)}.items():
        found |= {
            f"model.proj_3d.{layer}.weight": torch.randn(out, size),
            f"model.proj_3d.{layer}.bias": torch.randn(out),
        }
    return found


def official_folder(
    folder: Path, tensors: dict[str, torch.Tensor], *, kind: str = "safetensors", shards: int = 1, **config
) -> Path:
    """A checkpoint as the official code writes it; the tower's own config lies beside it."""
    settings = {
        "model_type": "llava_qwen",
        "hidden_size": DIM,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 4096,
        "mm_spatial_pool_stride": 2,
    }
    tower = {"num_attention_heads": 4, "image_size": 24}
    return write_official(folder, tensors, settings | config, tower, family_tokenizer(), kind=kind, shards=shards)


def write_official(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    config: dict[str, Any],
    tower: dict[str, int],
    tokenizer: Any,
    *,
    kind: str = "safetensors",
    shards: int = 1,
) -> Path:
    """Any checkpoint in that form.

    Args:
        folder: to be made.
        tensors: under the official names.
        config: config.json; ``mm_vision_tower`` names the tower's folder where nothing else is said.
        tower: the tower's own config.json.
        tokenizer: its files go into the folder.
        kind: "safetensors" or "bin".
        shards: number of weight files.
    """
    folder.mkdir()
    beside = folder.parent / f"{folder.name}-siglip"
    beside.mkdir()
    (beside / "config.json").write_text(json.dumps({"vision_config": tower}))
    (folder / "config.json").write_text(json.dumps({"mm_vision_tower": str(beside), **config}))
    tokenizer.save_pretrained(folder)
    names = sorted(tensors)
    groups = [names[i::shards] for i in range(shards)]
    places = {}
    for number, group in enumerate(groups, start=1):
        stem = {"safetensors": "model", "bin": "pytorch_model"}[kind]
        title = f"{stem}-{number:05d}-of-{shards:05d}.{kind}" if shards > 1 else f"{stem}.{kind}"
        part = {name: tensors[name].contiguous() for name in group}
        if kind == "bin":
            torch.save(part, folder / title)
        else:
            save_file(part, folder / title)
        places |= dict.fromkeys(group, title)
    if shards > 1:
        (folder / f"{'model.safetensors' if kind == 'safetensors' else 'pytorch_model.bin'}.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": places})
        )
    return folder


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """A small tokenizer with Qwen's marks and chat template, as the releases have it: without <image>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<ground>", "<coord>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<ground>", "<coord>"],
        chat_template=QWEN_CHAT,
    )
