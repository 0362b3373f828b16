"""What people hand in where weights are expected, and what each of these things means."""

from collections.abc import Iterable
from pathlib import Path

from stereopsis.reading import open_plain

_LFS = b"version https://git-lfs"
_PAGES = (b"<!doctype html", b"<html", b"<?xml")
_PREFIXES = {
    "base_model.model.": "the file was saved from inside PEFT and may lack its adapters; give 'convert' the folder "
    "with adapter_config.json, or merge the adapters and save the merged model",
    "module.": "the file was saved from inside DataParallel, DDP or DeepSpeed; save 'model.module.state_dict()'",
    "_orig_mod.": "the file was saved from a model under torch.compile; save the model that was compiled instead",
    "_fsdp_wrapped_module.": "the file was saved from inside FSDP; gather the whole state dict and save that",
}


def what_it_is(path: Path) -> str:
    """A hint for an error message: what an unreadable file really is; empty where nothing is recognised."""
    try:
        with open_plain(path) as file:
            start = file.read(64)
    except OSError:
        return ""
    if not start:
        return ". The file is empty: its download or its disk ended"
    if start.startswith(_LFS):
        return ". It is Git LFS's pointer, not the file: run 'git lfs install' and 'git lfs pull' in that folder"
    if start.lstrip().lower().startswith(_PAGES):
        return ". It is a web page: the download met a login or an error; download it again"
    if path.name.startswith(("zero_pp_rank_", "bf16_zero_pp_rank_", "mp_rank_")):
        return f". It is a part of a DeepSpeed checkpoint: {_ZERO}"
    return ""


_ZERO = "run its 'zero_to_fp32.py' there, which writes pytorch_model.bin, and take that"


def instead_of_weights(folder: Path) -> str:
    """A hint for an error message: what a folder without weights holds instead; empty where nothing is recognised."""
    names = [path.name for path in folder.iterdir()]
    if "adapter_config.json" in names or any(name.startswith("adapter_model.") for name in names):
        return (
            ". It holds low-rank adapters without the model that they belong to: 'stereopsis convert FOLDER OUT --base "
            "BASE' merges adapters on an official checkpoint, 'stereopsis merge' those of a run of this package"
        )
    zero = any(name.startswith(("global_step", "zero_pp_rank_", "bf16_zero_pp_rank_", "mp_rank_")) for name in names)
    if zero or "zero_to_fp32.py" in names:
        return f". It holds a DeepSpeed checkpoint in parts: {_ZERO}"
    if any(name.endswith((".distcp", ".metadata")) or name.startswith("pytorch_model_fsdp") for name in names):
        return ". It holds FSDP's shards: gather them with 'accelerate merge-weights' first"
    if any(name.endswith(".gguf") for name in names):
        return ". It holds llama.cpp's quantised weights (.gguf), from which no model can be trained; take the original"
    if any(name.endswith((".incomplete", ".part", ".aria2", ".crdownload")) for name in names):
        return ". Its download is not finished: go on with it"
    inside = sorted(p.parent.name for p in folder.glob("*/*.safetensors"))
    return f". Did you mean {folder / inside[0]}?" if inside else ""


def strange_prefix(names: Iterable[str]) -> str:
    """A hint for an error message: why all of a checkpoint's names begin with a wrapper's; empty where they do not."""
    names = list(names)
    for prefix, why in _PREFIXES.items():
        if names and sum(name.startswith(prefix) for name in names) > len(names) / 2:
            return f"its names begin with '{prefix}': {why}"
    return ""
