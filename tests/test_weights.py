"""Weight files: read a tensor at a time, written in any order, whole or not at all."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from stereopsis.errors import CheckpointError
from stereopsis.weights import ShardWriter, Spec, TensorFileWriter, shards_of


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "half": torch.randn(5, 7, generator=draw).bfloat16(),
        "scalar": torch.tensor(3.25),
        "flags": torch.rand(9, generator=draw) < 0.5,
        "none": torch.zeros(0, 4),
        "turned": torch.randn(4, 6, generator=draw).double().T,
        "counts": torch.arange(11),
    }


def specs(tensors) -> dict[str, Spec]:
    return {name: Spec(dtype=value.dtype, shape=tuple(value.shape)) for name, value in tensors.items()}


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == value.dtype and torch.equal(found[name], value) for name, value in expected.items()
    )


def test_a_file_is_what_safetensors_reads_whatever_the_order(tmp_path, tensors):
    file = TensorFileWriter(tmp_path / "x.safetensors", specs(tensors))
    for name in sorted(tensors):
        assert not file.path.exists()
        file.add(name, tensors[name])
    file.close()
    assert same(load_file(file.path), tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_file_with_holes_gets_no_name(tmp_path, tensors):
    file = TensorFileWriter(tmp_path / "x.safetensors", specs(tensors))
    file.add("half", tensors["half"])
    with pytest.raises(ValueError, match=r"5 weights were not written \['counts', 'flags', 'none'\]"):
        file.close()
    for name, value in (("half", tensors["half"]), ("other", tensors["half"]), ("counts", tensors["counts"].int())):
        with pytest.raises(ValueError, match=f"'{name}' was laid out as"):
            file.add(name, value)
    file.abandon()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [1, 100, 10_000])
def test_shards_and_their_index(tmp_path, tensors, limit):
    """No shard is above the limit unless one tensor is; what is written is what is read."""
    writer = ShardWriter(tmp_path, specs(tensors), limit)
    for name, value in reversed(tensors.items()):
        writer.add(name, value)
    assert shard_names(tmp_path) == []
    writer.close()
    found = {name: value.clone() for shard in shards_of(tmp_path) for name, value in shard.tensors()}
    assert same(found, tensors)
    assert len(shard_names(tmp_path)) == {1: 6, 100: 3, 10_000: 1}[limit]
    for shard in shards_of(tmp_path):
        sizes = [spec.nbytes for spec in shard.specs().values()]
        assert sum(sizes) <= limit or len(sizes) == 1
    index = tmp_path / "model.safetensors.index.json"
    assert index.exists() == (limit < 10_000)
    if index.exists():
        assert json.loads(index.read_text())["metadata"]["total_size"] == sum(v.nbytes for v in tensors.values())


def shard_names(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("model*.safetensors"))


def test_an_abandoned_writer_leaves_nothing(tmp_path, tensors):
    writer = ShardWriter(tmp_path, specs(tensors), 100)
    writer.add("half", tensors["half"])
    with pytest.raises(ValueError, match="'new' was not laid out"):
        writer.add("new", tensors["half"])
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_specs_need_no_tensors_and_are_those_of_both_kinds(tmp_path, tensors):
    tensors["turned"] = tensors["turned"].contiguous()
    save_file(tensors, tmp_path / "x.safetensors")
    torch.save(tensors, tmp_path / "x.bin")
    for name in ("x.safetensors", "x.bin"):
        assert shards_of(tmp_path / name)[0].specs() == specs(tensors)


def test_torch_files_of_old(tmp_path, tensors):
    """Not mapped into memory, and just as safe."""
    torch.save(tensors, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    (shard,) = shards_of(tmp_path / "x.bin")
    assert same(dict(shard.tensors()), tensors)
    torch.save({"x": tensors["half"], "path": tmp_path}, tmp_path / "y.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="opening them runs code"):
        shards_of(tmp_path / "y.bin")


def test_numbers_of_an_unknown_kind_are_refused(tmp_path):
    save_file({"odd": torch.zeros(3, dtype=torch.complex64)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="'odd' holds numbers of kind C64"):
        shards_of(tmp_path / "x.safetensors")[0].specs()


def test_a_full_disk_is_told(tmp_path, tensors):
    with pytest.raises(CheckpointError, match="free some space"):
        TensorFileWriter(tmp_path / "missing" / "x.safetensors", specs(tensors))
