"""The engines that train on several processes: accelerate's configuration files, and what each of them asks for."""

import os
from pathlib import Path
from typing import Any, Literal

import torch

from stereopsis.errors import RecipeError, did_you_mean
from stereopsis.precision import ComputePrecision, choose_precision
from stereopsis.training.recipe import ENGINE_FOLDER, Recipe, recipe_folders

Sharding = Literal["fsdp", "deepspeed"]


def find_engine(name: str) -> Path:
    """One of accelerate's configuration files that lie beside the recipes, by name.

    Raises:
        RecipeError: no such file; names the nearest.
    """
    known: dict[str, Path] = {}
    for folder in recipe_folders():
        for path in sorted((folder / ENGINE_FOLDER).glob("*.yaml")):
            known.setdefault(path.stem, path)
    stem = name.removesuffix(".yaml")
    if stem in known:
        return known[stem]
    raise RecipeError(f"no engine '{name}'{did_you_mean(stem, known)}; there are {', '.join(sorted(known))}")


def sharding() -> Sharding | None:
    """What spreads parameters or optimiser states over processes, as ``accelerate launch`` says; None: nothing."""
    for name, key in (("fsdp", "ACCELERATE_USE_FSDP"), ("deepspeed", "ACCELERATE_USE_DEEPSPEED")):
        if os.environ.get(key, "false").lower() == "true":
            return name  # type: ignore[return-value]
    return None


def check_engine(recipe: Recipe) -> None:
    """Refuse what an engine cannot do, before any work is done.

    Raises:
        RecipeError: names what stands in the way.
    """
    if sharding() is not None and recipe.training.optimizer == "muon":
        raise RecipeError(
            f"training.optimizer is 'muon', which needs whole matrices, but {sharding()} shards them; add "
            "-s training.optimizer=adamw, or launch with the engine 'ddp'"
        )
    if sharding() == "fsdp" and recipe.model.dtype == "bfloat16" and recipe.model.lora is None:
        raise RecipeError(
            "model.dtype is 'bfloat16', but FSDP wants one precision among all that is trained, and the heads are "
            "float32; leave model.dtype out (training.precision: bf16 halves what is computed), or launch with 'zero3'"
        )
    if sharding() is not None and recipe.model.load_in is not None:
        raise RecipeError(
            f"model.load_in is '{recipe.model.load_in}': a quantised base cannot be sharded by {sharding()}; launch "
            "with the engine 'ddp'"
        )
    if sharding() == "deepspeed" and recipe.training.on_nonfinite == "skip":
        raise RecipeError(
            "training.on_nonfinite is 'skip', but DeepSpeed steps by itself and cannot leave a step out; launch with "
            "'fsdp2' or 'ddp', or leave it out"
        )
    if sharding() == "fsdp" and os.environ.get("FSDP_VERSION", "1") != "2":
        raise RecipeError("only FSDP's second version is supported; set 'fsdp_version: 2' (see the engine 'fsdp2')")
    if os.environ.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "false").lower() == "true" and sharding() == "fsdp":
        raise RecipeError("heads start on every process; set 'fsdp_cpu_ram_efficient_loading: false'")


def shard_on_cpu_too(accelerator: Any) -> None:
    """Let FSDP work where processes compute on CPUs.

    Accelerate knows it for accelerators only, and would train unsharded without a word.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = accelerator.state
    if sharding() == "fsdp" and state.distributed_type == DistributedType.MULTI_CPU:
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


def training_precision(recipe: Recipe, device: torch.device | str, *, decided: str | None = None) -> ComputePrecision:
    """What a recipe's products are computed in; weights that are kept in half precision want bfloat16 anywhere.

    Args:
        recipe: what to train.
        device: where.
        decided: what "auto" came to when the run was started that goes on now.
    """
    kept_in_half = recipe.model.dtype != "float32" or recipe.model.load_in is not None
    return choose_precision("bf16" if kept_in_half else recipe.training.precision, device, decided=decided)


def autocast(device: torch.device) -> torch.autocast:
    """Half precision for the language model's products, with weights as they are.

    Casts are not remembered: a shard is gone before its weights are used again.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)
