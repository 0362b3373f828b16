"""Writing whole or not at all."""

import errno
import io
import os
from pathlib import Path

import pytest

from stereopsis.errors import CacheError
from stereopsis.files import cache_folder, is_cache, mark_cache, replacing, write_atomic


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "x.txt"
    write_atomic(path, "old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == tmp_path
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_nothing_has_changed(tmp_path):
    path = tmp_path / "x.txt"
    write_atomic(path, "old")

    def fails() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "x.txt"
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_the_cache_folder_follows_the_users_choice(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "stereopsis"
    for absent in ("", "relative/folder"):  # the specification: a relative path is to be ignored
        monkeypatch.setenv("XDG_CACHE_HOME", absent)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert cache_folder() == tmp_path / "home" / ".cache" / "stereopsis"


def test_a_cache_is_marked_as_all_programs_mark_it(tmp_path):
    assert not is_cache(tmp_path)
    assert mark_cache(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert is_cache(tmp_path / "a" / "b")
    assert not is_cache(tmp_path / "a")
    assert (tmp_path / "a" / "b" / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    (tmp_path / "CACHEDIR.TAG").write_text("something else")
    assert not is_cache(tmp_path)


def test_write_atomic_replaces_and_makes_folders(tmp_path):
    file = tmp_path / "new" / "folder" / "a.txt"
    assert write_atomic(file, b"one") == file
    write_atomic(file, b"two")
    assert file.read_bytes() == b"two"
    assert [entry.name for entry in file.parent.iterdir()] == ["a.txt"]


def test_write_atomic_gives_ordinary_permissions(tmp_path):
    (tmp_path / "ordinary").write_bytes(b"")
    write_atomic(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_write_atomic_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch, failure):
    file = write_atomic(tmp_path / "a.txt", b"old")

    class FullDisk(io.BytesIO):
        def write(self, data):
            raise failure

    opened = Path.open

    def open_full(self, mode="r", *args, **kwargs):
        opened(self, mode, *args, **kwargs).close()
        return FullDisk()

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(CacheError if isinstance(failure, OSError) else KeyboardInterrupt) as error:
        write_atomic(file, "new", error=CacheError)
    monkeypatch.undo()
    if isinstance(failure, OSError):
        assert str(file) in str(error.value)
        assert "No space left" in str(error.value)
        assert "free some space" in str(error.value)
    assert file.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
