"""Saving and opening models: plain Hugging Face files, plus the small extra parts, training heads apart."""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from huggingface_hub import HfApi
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from stereopsis.annotations import COORD_TOKEN, GROUND_TOKEN
from stereopsis.errors import CheckpointError, did_you_mean
from stereopsis.model_files import CONFIG_FILE, HEADS_FILE, RELEASED_CONFIG, SPATIAL_FILE
from stereopsis.models.adapter import Adapter
from stereopsis.models.attention import Attention
from stereopsis.models.families import FAMILIES
from stereopsis.models.lora import base_of, has_lora, merged, quantization, restore_lora, save_lora
from stereopsis.models.spatial import Fit, ObjectFeatures, Positions, SpatialConfig, SpatialModel
from stereopsis.reading import open_tensors, read_json
from stereopsis.weights import write_json
from stereopsis.weights.manifest import check_manifest, write_manifest
from stereopsis.weights.mistaken import what_it_is
from stereopsis.weights.pretrained import open_pretrained

OFFICIAL_TYPES = ("llava_llama", "llava_mistral", "llava_mixtral", "llava_mpt", "llava_qwen")
"""What LLaVA's own code writes as ``model_type``."""
GROUNDING_KEY = "grounding_head"
"""In ``spatial_config.json``: whether a grounding head belongs to the model; false where it will start untrained."""
SCHEMA = 1
_REMEDY = "copy the model folder again, or make it again with the command that made it"


def adapter_for(model: Any, view_grid: tuple[int, int]) -> Adapter:
    """The adapter of a Hugging Face model's family.

    Raises:
        CheckpointError: no adapter speaks for this family.
    """
    return _adapter_class(model.config.model_type)(model, view_grid)


def save_model(model: SpatialModel, folder: str | Path, *, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write a model folder that plain transformers can open too.

    ``config.json``, ``model.safetensors`` and the tokenizer are the backbone in Hugging Face's own form;
    ``spatial.safetensors`` holds the grounding head; ``training_heads.safetensors`` the objectives' heads, which
    inference never reads. Of a backbone with low-rank adapters only these are written, in PEFT's form, with the base's
    ``config.json``; `load_model` finds the base by them and merges.

    Args:
        model: what is saved.
        folder: made where it is not there.
        state: the model's whole state, where the model itself holds only a part of it (sharded training).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict() if state is None else state
    if has_lora(model.backbone):
        save_lora(model.backbone, folder, state=_part(state, "backbone."))
    else:
        model.backbone.save_pretrained(folder, state_dict=_part(state, "backbone."))  # type: ignore[operator]
    model.tokenizer.save_pretrained(folder)
    _save_tensors(_part(state, "grounding."), folder / SPATIAL_FILE)
    if model.objectives is not None:
        _save_tensors(_part(state, "objectives."), folder / HEADS_FILE)
    if model.released is not None:
        write_json(folder / RELEASED_CONFIG, model.released)
    record = {"schema": SCHEMA, **dataclasses.asdict(model.settings), GROUNDING_KEY: True}
    (folder / CONFIG_FILE).write_text(json.dumps(record, indent=2) + "\n")
    write_manifest(folder)


def push_model(
    model: SpatialModel, name: str, *, card: str | Path | None = None, private: bool = True, token: str | None = None
) -> str:
    """Upload a model to the Hugging Face hub, heads of its objectives included; `load_model` opens what is downloaded.

    Args:
        model: what is uploaded.
        name: of the repository, "OWNER/NAME"; made where it is not there.
        card: its README.md, as `train` writes it beside a run's model; None = the repository's own stays.
        private: whether only its owner sees a new repository.
        token: of the hub; None = the one of ``hf auth login``.

    Returns:
        The commit's address.
    """
    api = HfApi(token=token)
    api.create_repo(name, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, folder)
        if card is not None:
            shutil.copyfile(card, Path(folder, "README.md"))
        done = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a model of Stereopsis")
    return str(done.commit_url)


def load_model(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    attention: Attention = "sdpa",
    load_in: str | None = None,
    **changes: Any,
) -> SpatialModel:
    """Open a model folder for inference; adapters are merged into the base that they were trained on.

    Args:
        folder: written by `save_model`, or a plain Hugging Face multimodal LLM (its spatial parts start fresh).
        dtype: of the parameters.
        attention: how packed rows are attended; see `stereopsis.models.attention.Attention`.
        load_in: "8bit" or "4bit" keeps the backbone's matrices quantised (package bitsandbytes).
        changes: fields of `SpatialConfig` to change (for example ``positions="none"``).

    Raises:
        CheckpointError: the folder is not a model, is damaged, lacks a part, or its parts belong to another
            architecture.
        MissingExtraError: adapters without peft, or ``load_in`` without bitsandbytes.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is not a model folder: it has no config.json; give a folder made by 'train'")
    check_manifest(folder, _REMEDY, passed_over=(HEADS_FILE,))
    check_parts(folder)
    config = read_settings(folder, changes)
    family = _family(folder)
    if family != config.family:
        raise CheckpointError(
            f"{folder}: spatial_config.json was written for the family '{config.family}' but config.json is a "
            f"'{family}'; the files come from different models"
        )
    _adapter_class(family)
    tokenizer = open_pretrained(AutoTokenizer, folder)
    backbone = _open_backbone(folder, tokenizer, dtype, load_in)
    model = SpatialModel(
        backbone=backbone, adapter=adapter_for(backbone, config.view_grid), tokenizer=tokenizer, config=config
    )
    if (folder / RELEASED_CONFIG).is_file():
        model.released = _read_json(folder / RELEASED_CONFIG)
    model.adapter.attend(attention)
    model.grounding.to(dtype)
    if (folder / SPATIAL_FILE).is_file():
        load_tensors(model.grounding, folder / SPATIAL_FILE)
    return model.eval()


def check_parts(folder: Path) -> None:
    """Refuse a model folder without the grounding head that belongs to it; a plain backbone has none yet.

    Raises:
        CheckpointError: names the missing file.
    """
    if not (folder / CONFIG_FILE).is_file() or (folder / SPATIAL_FILE).is_file():
        return
    if _read_json(folder / CONFIG_FILE).get(GROUNDING_KEY, True):
        raise CheckpointError(
            f"{folder / SPATIAL_FILE} is missing: the model's grounding head was in it, and an untrained one would "
            f"answer instead; {_REMEDY}"
        )


def _open_backbone(folder: Path, tokenizer: Any, dtype: torch.dtype, load_in: str | None) -> Any:
    """The Hugging Face model of a folder, with a place in its embeddings for each of the tokenizer's tokens."""
    base = base_of(folder)
    if base is not None:
        return merged(_open_backbone(base, tokenizer, dtype, load_in), folder)
    options: dict[str, Any] = {} if load_in is None else {"quantization_config": quantization(load_in, dtype)}
    backbone, loading = open_pretrained(
        AutoModelForImageTextToText,
        folder,
        dtype=dtype,
        attn_implementation="sdpa",
        output_loading_info=True,
        **options,
    )
    problems = {k: sorted(map(str, v))[:3] for k, v in loading.items() if v and k != "error_msgs"}
    if problems:
        raise CheckpointError(f"{folder}: model.safetensors does not fit config.json: {problems}")
    add_special_tokens(tokenizer, backbone)
    return backbone


def restore_backbone(model: SpatialModel, folder: Path) -> None:
    """Give a model's backbone the weights (or the adapters) that `save_model` wrote into a folder.

    Raises:
        CheckpointError: they belong to another backbone.
    """
    if has_lora(model.backbone):
        restore_lora(model.backbone, folder)
        return
    stored = open_pretrained(AutoModelForImageTextToText, folder, dtype=torch.float32)
    try:
        model.backbone.load_state_dict(stored.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{folder} belongs to another backbone than this recipe's: {error}") from error


def add_special_tokens(tokenizer: Any, backbone: nn.Module) -> None:
    """Give a plain backbone the <coord> and <ground> tokens it lacks; grows the embedding table if it must."""
    missing = [t for t in (COORD_TOKEN, GROUND_TOKEN) if t not in tokenizer.get_vocab()]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
        if len(tokenizer) > backbone.get_input_embeddings().weight.shape[0]:  # type: ignore[operator]
            backbone.resize_token_embeddings(len(tokenizer))  # type: ignore[operator]


def load_tensors(module: nn.Module, path: Path, *, only: tuple[str, ...] = ("",)) -> None:
    """Load a module's state from safetensors; every key and shape must agree.

    Args:
        module: what is loaded.
        path: the file.
        only: leave out stored keys that begin with none of these.

    Raises:
        CheckpointError: names the first keys that are missing, unknown or of another shape.
    """
    stored = {key: tensor for key, tensor in _stored(path).items() if key.startswith(only)}
    own = module.state_dict()
    wrong = [k for k in own if k in stored and stored[k].shape != own[k].shape]
    missing, unknown = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
    if wrong or missing or unknown:
        raise CheckpointError(
            f"{path} belongs to another architecture: {len(missing)} keys missing {missing[:3]}, {len(unknown)} "
            f"unknown {unknown[:3]}, {len(wrong)} of another shape "
            f"{[(k, tuple(stored[k].shape), tuple(own[k].shape)) for k in wrong[:3]]}"
        )
    module.load_state_dict(stored)


def load_common_tensors(module: nn.Module, path: Path) -> list[str]:
    """Load what a module and a safetensors file both have; the rest stays as it is.

    Returns:
        The keys that were loaded.

    Raises:
        CheckpointError: nothing is common to both, or something has another shape.
    """
    stored, own = _stored(path), module.state_dict()
    common = [key for key in own if key in stored]
    wrong = [
        (key, tuple(stored[key].shape), tuple(own[key].shape)) for key in common if stored[key].shape != own[key].shape
    ]
    if wrong:
        raise CheckpointError(f"{path} belongs to another architecture: {len(wrong)} of another shape {wrong[:3]}")
    if own and not common:
        raise CheckpointError(f"{path} holds none of the heads that are trained here; it has {sorted(stored)[:3]}")
    module.load_state_dict({key: stored[key] for key in common}, strict=False)
    return common


def _stored(path: Path) -> dict[str, torch.Tensor]:
    try:
        with open_tensors(path) as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); {_REMEDY}") from error


def _part(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def _save_tensors(state: Mapping[str, torch.Tensor], path: Path) -> None:
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, path)


def _adapter_class(family: str) -> type[Adapter]:
    if family in OFFICIAL_TYPES:
        raise CheckpointError(
            f"the model is an official checkpoint ('{family}') as LLaVA's code writes it; make a model folder of it "
            "with 'stereopsis convert FOLDER OUT'"
        )
    if family not in FAMILIES:
        hint = did_you_mean(family, FAMILIES)
        raise CheckpointError(
            f"no adapter for the model family '{family}'{hint}; take a model of a family in {sorted(FAMILIES)}"
        )
    return FAMILIES[family]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not valid JSON ({error}); copy the model folder again{what_it_is(path)}"
        ) from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} holds a {type(record).__name__}, expected an object; copy it again")
    return record


def _family(folder: Path) -> str:
    return str(_read_json(folder / "config.json").get("model_type"))


def read_settings(folder: Path, changes: Mapping[str, Any]) -> SpatialConfig:
    """What a model folder's ``spatial_config.json`` says, or a plain backbone's defaults, with some changes.

    Raises:
        CheckpointError: another schema, an unknown family or an unknown change.
    """
    known = {f.name for f in dataclasses.fields(SpatialConfig)}
    record: dict[str, Any] = {}
    if (folder / CONFIG_FILE).is_file():
        record = _read_json(folder / CONFIG_FILE)
        schema = record.pop("schema", None)
        record.pop(GROUNDING_KEY, None)
        if schema != SCHEMA:
            raise CheckpointError(f"{folder / CONFIG_FILE} has schema {schema}; this version reads {SCHEMA}")
    elif "family" not in changes:
        record["family"] = _family(folder)
    record.update(changes)
    for key in record.keys() - known:
        raise CheckpointError(f"unknown model option '{key}'{did_you_mean(key, known)}")
    if "view_grid" not in record:
        _adapter_class(record["family"])
        record["view_grid"] = fresh_grid(open_config(folder))
    try:
        _check_values(record)
        record["view_grid"] = tuple(record["view_grid"])
        return SpatialConfig(**record)
    except (CheckpointError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE} holds a wrong value ({error}); {_REMEDY}") from error


def _check_values(record: Mapping[str, Any]) -> None:
    """Refuse a value that is none of those that a field knows.

    Raises:
        CheckpointError: names the field, and what it may be.
    """
    for name, kind in (("positions", Positions), ("fit", Fit), ("object_features", ObjectFeatures)):
        known = get_args(kind)
        if name in record and record[name] not in known:
            hint = did_you_mean(str(record[name]), known)
            raise CheckpointError(f"{name}: expected one of {', '.join(known)}, found '{record[name]}'{hint}")
    grid = record["view_grid"]
    sides = list(grid) if isinstance(grid, (list, tuple)) else [grid]
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise CheckpointError(f"view_grid: expected two positive numbers, rows and cols, found {sides}")


def open_config(folder: Path) -> Any:
    """The backbone's configuration in a model folder.

    Raises:
        CheckpointError: no adapter speaks for its family.
    """
    _adapter_class(_family(folder))
    return open_pretrained(AutoConfig, folder)


def fresh_grid(config: Any) -> tuple[int, int]:
    """Rows and cols of a view's tokens in a plain backbone of this configuration.

    Raises:
        CheckpointError: no adapter speaks for its family.
    """
    return _adapter_class(config.model_type).default_grid(config)
