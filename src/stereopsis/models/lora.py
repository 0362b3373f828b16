"""Low-rank adapters on the language model: put on, written in PEFT's own form, read again, merged into the weights."""

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from stereopsis.errors import CheckpointError, MissingExtraError, RecipeError
from stereopsis.reading import json_or, read_tensors

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
NAME = "default"
_KEPT = (
    "lm_head",
    "model.vision_tower",
    "model.visual",
    "model.vision_model",
    "model.multi_modal_projector",
    "model.connector",
)
"""Parts that are not quantised: all but the language model's layers."""
_PREFIX = "base_model.model."
"""What PEFT writes before the names of a wrapped model's parts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which matrices get an adapter, and of what size.

    Attributes:
        rank: of the adapters.
        alpha: their output is scaled by alpha / rank.
        targets: names of the language model's matrices.
        dropout: share of an adapter's inputs that is dropped in training.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    dropout: float


def add_lora(backbone: Any, config: LoraConfig, *, base: Path, tokens: tuple[int, ...] = ()) -> None:
    """Freeze a backbone and put adapters on its language model.

    Args:
        backbone: a Hugging Face multimodal LLM; changed in place.
        config: which matrices.
        base: the folder that the backbone was opened from; written down, so that the adapters find it again.
        tokens: ids whose embeddings are trained nevertheless (tokens that the base has never seen).

    Raises:
        MissingExtraError: peft is not installed.
        RecipeError: the language model has no matrix of one of the names.
    """
    peft = _peft("'model.lora'")
    decoder = backbone.get_decoder()
    decoder_name = next(name for name, module in backbone.named_modules() if module is decoder)
    known = {
        name.rpartition(".")[2] for name, module in decoder.layers.named_modules() if isinstance(module, nn.Linear)
    }
    for target in config.targets:
        if target not in known:
            raise RecipeError(
                f"model.lora.targets: the language model has no matrix '{target}'; it has {sorted(known)}"
            )
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=rf"{re.escape(decoder_name)}\.layers\.\d+\..*({'|'.join(config.targets)})",
        trainable_token_indices=sorted(tokens) or None,
        base_model_name_or_path=str(base.resolve()),
    )
    peft.inject_adapter_in_model(settings, backbone, NAME)
    for name, parameter in backbone.named_parameters():
        if "lora_" in name:  # peft gives them the base's precision, in which small updates would be rounded away
            parameter.data = parameter.data.float()
    backbone.peft_config = {NAME: settings}


def has_lora(backbone: nn.Module) -> bool:
    """Whether a backbone carries adapters."""
    return bool(getattr(backbone, "peft_config", None))


def save_lora(backbone: Any, folder: Path, *, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write a backbone's adapters, and the base's ``config.json``, but not the base's weights.

    Args:
        backbone: that carries adapters.
        folder: is there already.
        state: the backbone's whole state, where it holds only a part of it itself (sharded training).
    """
    peft = _peft("saving adapters")
    backbone.config.save_pretrained(folder)
    backbone.peft_config[NAME].save_pretrained(folder)
    own = peft.get_peft_model_state_dict(backbone, state_dict=state, adapter_name=NAME)
    save_file({_PREFIX + k: v.detach().cpu().contiguous().clone() for k, v in own.items()}, folder / ADAPTER_FILE)


def restore_lora(backbone: Any, folder: Path) -> None:
    """Give a backbone that carries adapters those of a folder.

    Raises:
        CheckpointError: they belong to other matrices, or are of another rank.
    """
    peft = _peft("reading adapters")
    stored = {key.removeprefix(_PREFIX): value for key, value in read_tensors(folder / ADAPTER_FILE).items()}
    own = peft.get_peft_model_state_dict(backbone, adapter_name=NAME)
    wrong = sorted(
        k for k in own.keys() | stored.keys() if k not in own or k not in stored or own[k].shape != stored[k].shape
    )
    if wrong:
        raise CheckpointError(f"{folder / ADAPTER_FILE} belongs to other adapters than this recipe's: {wrong[:3]}")
    peft.set_peft_model_state_dict(backbone, stored, adapter_name=NAME)


def base_of(folder: Path) -> Path | None:
    """The folder of the base that a folder's adapters were trained on; None where it holds none.

    Raises:
        CheckpointError: that folder is not there.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        return None
    base = Path(str(json_or(path, CheckpointError, "copy the adapters again").get("base_model_name_or_path")))
    if not (base / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds adapters on the model in {base}, which is not there; correct 'base_model_name_or_path' in "
            f"{path}"
        )
    return base


def merged(backbone: Any, folder: Path) -> Any:
    """A backbone with a folder's adapters added to its weights for good."""
    peft = _peft(f"opening the adapters in {folder}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers under an old name
        return peft.PeftModel.from_pretrained(backbone, folder, torch_device="cpu").merge_and_unload()


def quantization(bits: str, dtype: torch.dtype) -> Any:
    """How transformers loads a base in 4 (NF4) or 8 bits.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("bitsandbytes", "bnb", f"'model.load_in: {bits}'") from error
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(_KEPT))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=list(_KEPT),
    )


def _peft(purpose: str) -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft", "lora", purpose) from error
    return peft
