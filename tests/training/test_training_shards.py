"""Sharded checkpoints of strangers: torch would run what their pickles name, so they are refused beforehand."""

import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as distributed
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from stereopsis.errors import CheckpointError
from stereopsis.training.checkpoints import check_trusted
from stereopsis.training.shards import check_shards
from stereopsis.training.train_run import train

RAN: list[str] = []


class Hostile:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def run_code(word: str) -> str:
    RAN.append(word)
    return word


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """As an engine writes them: a model, its optimiser's state, small values beside tensors."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer), "more": {"a": [1]}}
    folder = tmp_path / "pytorch_model_fsdp_0"
    with pytest.warns(UserWarning, match="torch.distributed is disabled"):
        distributed.save(state, storage_writer=distributed.FileSystemWriter(folder), no_dist=True)
    return folder


def change(shards: Path, metadata: Any) -> None:
    (shards / ".metadata").write_bytes(pickle.dumps(metadata))


def read(shards: Path) -> Metadata:
    return pickle.loads((shards / ".metadata").read_bytes())


def test_what_an_engine_writes_is_accepted(shards):
    check_shards(shards)
    assert any(isinstance(kind, BytesStorageMetadata) for kind in read(shards).state_dict_metadata.values())


@pytest.mark.parametrize("place", ["planner_data", "storage_meta", "version"])
def test_metadata_that_runs_code_is_refused_and_nothing_runs(shards, place):
    found = read(shards)
    setattr(found, place, Hostile(run_code, "metadata"))
    change(shards, found)
    with pytest.raises(CheckpointError, match=r"\.metadata: refused: it names '.*run_code'; nothing of it was run"):
        check_shards(shards)
    assert RAN == []
    read(shards)
    assert RAN.pop() == "metadata"  # torch's own reader would have run it


@pytest.mark.parametrize("function", [getattr, exec, torch.load, Path.unlink, pickle.loads, torch.Tensor])
def test_only_the_names_that_torch_writes_are_known(shards, function):
    found = read(shards)
    found.planner_data = Hostile(function, TensorProperties, "mro")
    change(shards, found)
    with pytest.raises(CheckpointError, match="refused: it names"):
        check_shards(shards)


def test_a_pickle_cannot_change_the_classes_that_torch_trusts(shards):
    """BUILD with a pair sets attributes even of classes."""
    body = b"\x80\x02ctorch.distributed.checkpoint.metadata\nMetadata\nN}X\x01\x00\x00\x00aK\x01s\x86b."
    (shards / ".metadata").write_bytes(body)
    with pytest.raises(CheckpointError, match="cannot be read"):
        check_shards(shards)
    assert not hasattr(Metadata, "a")


def test_a_small_value_that_runs_code_is_refused(shards):
    found = read(shards)
    index = MetadataIndex("more.a")
    place = found.storage_data[index]
    data = io.BytesIO()
    torch.save(Hostile(run_code, "value"), data)
    file = shards / place.relative_path
    place.offset, place.length = file.stat().st_size, len(data.getvalue())
    file.write_bytes(file.read_bytes() + data.getvalue())
    change(shards, found)
    with pytest.raises(CheckpointError, match=r"cannot be read as plain data .*nothing of it was run"):
        check_shards(shards)
    assert RAN == []


@pytest.mark.parametrize("file", ["../secret.distcp", "/etc/passwd", "..", ""])
def test_shards_lie_in_their_folder(shards, file):
    found = read(shards)
    next(iter(found.storage_data.values())).relative_path = file
    change(shards, found)
    with pytest.raises(CheckpointError, match="outside its folder"):
        check_shards(shards)


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"\x80\x04]."])
def test_a_damaged_folder_is_told_with_its_remedy(shards, damage):
    file = shards / ".metadata"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match=r"\.metadata"):
        check_shards(shards)
    file.unlink()
    with pytest.raises(CheckpointError, match="copy the checkpoint again"):
        check_shards(shards)


@pytest.mark.parametrize("folder", ["pytorch_model_fsdp_0", "optimizer_0"])
def test_resuming_runs_nothing_of_a_hostile_checkpoint(make_recipe, shards, tmp_path, folder):
    """A plain run, one process, whose newest checkpoint somebody has given shards."""
    recipe = make_recipe("text", training__steps=2, training__save_every=1)
    run = train(recipe, tmp_path / "run", progress=False).folder
    shutil.rmtree(run / "checkpoints" / "checkpoint-2")
    found = read(shards)
    found.planner_data = Hostile(run_code, "resumed")
    change(shards, found)
    shutil.copytree(shards, run / "checkpoints" / "checkpoint-1" / folder)
    with pytest.raises(CheckpointError, match="refused: it names"):
        train(recipe, run, resume=True, progress=False)
    assert RAN == []


def test_deepspeed_files_may_name_its_own_settings_and_nothing_else(tmp_path):
    folder = tmp_path / "global_step3"
    folder.mkdir()
    torch.save({"module": {"w": torch.ones(2)}, "ds_version": "0.1"}, folder / "mp_rank_00_model_states.pt")
    check_trusted(tmp_path)
    torch.save({"module": Hostile(run_code, "engine")}, folder / "mp_rank_00_optim_states.pt")
    with pytest.raises(CheckpointError, match=r"optim_states\.pt: refused: it names"):
        check_trusted(tmp_path)
    (folder / "mp_rank_00_optim_states.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(CheckpointError, match=r"optim_states\.pt cannot be read"):
        check_trusted(tmp_path)
    assert RAN == []
