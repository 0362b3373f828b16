"""Autoencoders from diffusers' folders and hub ids, with every weight accounted for."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stereopsis.errors import CheckpointError


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubSource:
    """A folder on this disk, or a hub repository and the folder in it."""

    source: str
    subfolder: str = ""


def hub_source(source: str, default: str = "") -> HubSource:
    """Split "org/name/sub/folder"; a folder on this disk stays as it is.

    Args:
        source: what the recipe says.
        default: the subfolder of a hub repository where the source names none.
    """
    parts = source.split("/")
    if Path(source).expanduser().exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)+", source) or not parts[0].strip("."):
        return HubSource(source=source)
    return HubSource(source="/".join(parts[:2]), subfolder="/".join(parts[2:]) or default)


def load_diffusers(cls: Any, source: str | Path, subfolder: str, dtype: torch.dtype) -> nn.Module:
    """A diffusers model; a pipeline's folder on disk stands for the "vae" in it.

    Raises:
        CheckpointError: no such folder, no such file in it, or weights that do not match the config.
    """
    folder = Path(source).expanduser()
    if folder.is_file():
        raise CheckpointError(
            f"'{folder}' is a file; {cls.__name__} needs a folder with config.json and "
            "diffusion_pytorch_model.safetensors in diffusers' layout (convert it with its from_single_file)"
        )
    if folder.is_dir():
        folder = folder / "vae" if (folder / "vae" / "config.json").is_file() else folder
        _check_folder(folder, cls.__name__)
        source, subfolder = str(folder), ""
    elif not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(source)):
        raise CheckpointError(
            f"no folder '{source}' to load {cls.__name__} from; give a diffusers folder or an id 'org/name'"
        )
    try:
        vae, info = cls.from_pretrained(
            str(source), subfolder=subfolder or None, torch_dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"cannot load {cls.__name__} from '{source}': {error}") from error
    check_keys(source, cls.__name__, info["missing_keys"], info["unexpected_keys"])
    return vae


def load_all(module: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    """Load a state dict into a module; names and shapes must be the module's own.

    Raises:
        CheckpointError: they are not.
    """
    own = module.state_dict()
    check_keys(source, type(module).__name__, own.keys() - state.keys(), state.keys() - own.keys())
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise CheckpointError(
                f"weight '{key}' in '{source}' has shape {tuple(value.shape)}, "
                f"expected {tuple(own[key].shape)}; is it the checkpoint of another architecture?"
            )
    module.load_state_dict(state)


def check_keys(source: str | Path, kind: str, missing: Any, unexpected: Any) -> None:
    """Refuse a checkpoint that lacks weights or holds unknown ones."""
    for what, keys in (("lacks", sorted(missing)), ("holds unknown", sorted(unexpected))):
        if keys:
            raise CheckpointError(
                f"'{source}' {what} {len(keys)} weight(s) of {kind}, the first being '{keys[0]}'; "
                "is it the checkpoint of another architecture?"
            )


def _check_folder(folder: Path, kind: str) -> None:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"'{folder}' has no config.json; {kind} needs a folder in diffusers' layout")
    if not any(folder.glob("diffusion_pytorch_model*")):
        raise CheckpointError(
            f"'{folder}' has a config.json but no diffusion_pytorch_model.safetensors; "
            "download the weights into it (or train them: scripts/train_autoencoder.py)"
        )
