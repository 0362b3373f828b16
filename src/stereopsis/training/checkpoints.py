"""Reading checkpoints: plain ones, and those that an engine wrote in shards, on any number of processes."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stereopsis.errors import CheckpointError
from stereopsis.model_files import HEADS_FILE, SPATIAL_FILE
from stereopsis.models.spatial import SpatialModel
from stereopsis.models.storage import load_tensors, restore_backbone
from stereopsis.reading import read_json, read_torch
from stereopsis.training.shards import check_engine_files, check_shards
from stereopsis.weights.manifest import MANIFEST_FILE, check_manifest

COMPLETE_MARK = "complete"
MODEL_SHARDS, OPTIMIZER_SHARDS = "pytorch_model_fsdp_0", "optimizer_0"
STATE_FILE = "trainer_state.json"
OPTIMIZER_FILE, SCHEDULER_FILE = "optimizer.pt", "scheduler.pt"
_WRAPPER = "_checkpoint_wrapped_module."


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end, or None."""
    found = [p for p in folder.glob("checkpoint-*") if (p / COMPLETE_MARK).is_file()]
    return max(found, key=lambda p: int(p.name.rpartition("-")[2]), default=None)


def check_checkpoint(folder: Path) -> None:
    """Refuse a checkpoint that is damaged, lacks a file, or counts other steps than its name says; or that is hostile.

    Raises:
        CheckpointError: names the file and what to do.
    """
    remedy = f"copy the checkpoint again, or delete {folder} to resume from the one before it"
    facts = check_manifest(folder, remedy)
    if facts is None:
        raise CheckpointError(f"{folder / MANIFEST_FILE} is missing; {remedy}")
    check_trusted(folder)
    state = folder / STATE_FILE
    try:
        steps = {facts.get("step"), read_json(state)["global_step"], int(folder.name.rpartition("-")[2])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{state} cannot be read ({type(error).__name__}: {error}); {remedy}") from error
    if len(steps) > 1:
        raise CheckpointError(f"{folder}: its name, {STATE_FILE} and {MANIFEST_FILE} count different steps; {remedy}")


def check_trusted(folder: Path) -> None:
    """Refuse a checkpoint whose pickles ask for anything but what an engine writes; nothing of them is carried out.

    Raises:
        CheckpointError: names the file.
    """
    for shards in (MODEL_SHARDS, OPTIMIZER_SHARDS):
        if (folder / shards).is_dir():
            check_shards(folder / shards)
    check_engine_files(folder)


def load_whole(model: SpatialModel, folder: Path) -> None:
    """Load a checkpoint's weights, plain or in shards, into a model that is not sharded.

    Raises:
        CheckpointError: it belongs to another architecture.
    """
    if (folder / MODEL_SHARDS).is_dir():
        state = {"model": model.state_dict()}
        _read_shards(state, folder / MODEL_SHARDS)
        model.load_state_dict(state["model"])
        return
    restore_backbone(model, folder)
    load_tensors(model.grounding, folder / SPATIAL_FILE)
    if model.objectives is not None:
        load_tensors(model.objectives, folder / HEADS_FILE)


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Load an optimiser's state from shards into a whole one, or from a plain file into a sharded one.

    Args:
        model: whose parameters the optimiser holds, sharded or not.
        optimizer: of the same parameter groups as the one that was saved.
        folder: the checkpoint.
    """
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    if (folder / OPTIMIZER_SHARDS).is_dir():
        state = {"optimizer": get_optimizer_state_dict(model, optimizer)}
        _read_shards(state, folder / OPTIMIZER_SHARDS)
        set_optimizer_state_dict(model, optimizer, state["optimizer"])
        return
    plain = read_torch(folder / OPTIMIZER_FILE)
    named = named_state(plain, model, optimizer)
    set_optimizer_state_dict(model, optimizer, named, options=StateDictOptions(full_state_dict=True))


def named_state(plain: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state that counts parameters, in the form that names them."""
    names = {id(parameter): name.replace(_WRAPPER, "") for name, parameter in model.named_parameters()}
    called: dict[int, str] = {}
    groups = []
    for own, saved in zip(optimizer.param_groups, plain["param_groups"], strict=True):
        called |= dict(zip(saved["params"], (names[id(p)] for p in own["params"]), strict=True))
        groups.append({**saved, "params": [called[number] for number in saved["params"]]})
    return {"state": {called[number]: value for number, value in plain["state"].items()}, "param_groups": groups}


def tie(state: dict[str, torch.Tensor], model: nn.Module) -> None:
    """Let the names of a gathered state share tensors again where the model's parameters do."""
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        plain = name.replace(_WRAPPER, "")
        state[plain] = state[first.setdefault(id(parameter), plain)]


def _read_shards(state: dict[str, Any], folder: Path) -> None:
    """Fill tensors from shards, on this process alone.

    Raises:
        CheckpointError: they belong to another architecture.
    """
    import torch.distributed.checkpoint as shards

    check_shards(folder)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # so it is meant to be
            shards.load(state, storage_reader=shards.FileSystemReader(folder), no_dist=True)
    except (RuntimeError, ValueError, KeyError, shards.CheckpointException) as error:
        raise CheckpointError(f"{folder} belongs to another architecture than this recipe's: {error}") from error
