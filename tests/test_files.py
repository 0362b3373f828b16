"""Writing whole or not at all."""

import pytest

from stereopsis.files import cache_folder, is_cache, mark_cache, replacing, write_whole


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "x.txt"
    write_whole(path, "old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == tmp_path
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_nothing_has_changed(tmp_path):
    path = tmp_path / "x.txt"
    write_whole(path, "old")

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
