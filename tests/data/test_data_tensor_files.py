"""Tensor files: what was written comes back to the bit, damage is named, and a full disk leaves nothing behind."""

import errno
import os

import pytest
import torch

from stereopsis.data.tensor_files import open_tensors, write_tensors
from stereopsis.errors import CacheError


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shared = torch.rand(2, 3, generator=generator)
    return {
        "half": torch.randn(4, 5, 6, generator=generator).half(),
        "mask": torch.rand(3, 3, generator=generator) < 0.5,
        "pixels": torch.randint(0, 256, (2, 3, 4, 4), generator=generator, dtype=torch.uint8),
        "none": torch.zeros(0, 6),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "one": shared,
        "twin": shared,
    }


def test_tensors_and_facts_come_back(tensors, tmp_path):
    path = write_tensors(tmp_path / "deep" / "a.safetensors", tensors, {"names": ["x", "y"], "n": 3})
    file = open_tensors(path)
    assert file.facts == {"names": ["x", "y"], "n": 3}
    file.verify()
    found = file.tensors()
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_writing_into_what_was_read_changes_no_file(tensors, tmp_path):
    path = write_tensors(tmp_path / "a.safetensors", tensors, {})
    before = path.read_bytes()
    open_tensors(path).tensors()["half"].fill_(1.0)
    assert path.read_bytes() == before
    assert torch.equal(open_tensors(path).tensors()["half"], tensors["half"])


def test_a_cut_file_is_named(tensors, tmp_path):
    path = write_tensors(tmp_path / "a.safetensors", tensors, {})
    whole = path.read_bytes()
    for length in (0, 5, 60, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CacheError, match=r"a\.safetensors: is damaged or was cut short.*made anew"):
            open_tensors(path)


def test_a_changed_byte_is_noticed_and_the_tensor_named(tensors, tmp_path):
    path = write_tensors(tmp_path / "a.safetensors", {"half": tensors["half"]}, {})
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CacheError, match=r"a\.safetensors: the tensor 'half' is damaged"):
        open_tensors(path).verify()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(CacheError, match="does not exist"):
        open_tensors(tmp_path / "absent.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(CacheError, match="holds no facts"):
        open_tensors(tmp_path / "plain.safetensors")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tensors, tmp_path, monkeypatch):
    path = write_tensors(tmp_path / "a.safetensors", tensors, {"version": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(CacheError, match=r"No space left on device.*nothing half-written.*free some space"):
        write_tensors(path, tensors, {"version": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert open_tensors(path).facts == {"version": 1}
