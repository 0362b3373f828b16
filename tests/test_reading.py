"""No file blows up: what is absurd is refused with a sentence, within seconds and little memory."""

import json
import os
import time
import zipfile
from pathlib import Path

import pytest

from stereopsis.errors import RecipeError
from stereopsis.reading import check_archive, check_pixels, is_file, parse_json, parse_yaml, read_bytes, read_json
from stereopsis.training.recipe import load_recipe, parse_recipe

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "too many entries"),
        ("[" * 100_000, "too deep|too many"),
        ("{a: " * 1000 + "1" + "}" * 1000, "too deep|too many"),
        ("a: 1\nb: 2\na: 3\n", "'a' stands twice"),
        ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("x" * 2_000_000, "more than 1000000"),
        ("a: [1, 2", "expected"),
    ],
)
def test_yaml_that_is_absurd(text, words):
    start = time.monotonic()
    with pytest.raises(ValueError, match=words):
        parse_yaml(text)
    assert time.monotonic() - start < 10


def test_yaml_that_is_plain():
    text = "base: &b {x: 1}\nother: {<<: *b, y: [1, 2.5, true, null]}\n"
    assert parse_yaml(text) == {"base": {"x": 1}, "other": {"x": 1, "y": [1, 2.5, True, None]}}


def test_json_that_is_absurd(tmp_path):
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json("[" * 200_000 + "]" * 200_000)
    with pytest.raises(ValueError, match="says 'a' twice"):
        parse_json('{"b": 1, "a": 1, "a": 2}')
    file = tmp_path / "a.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"é": 1}).encode())
    assert read_json(file) == {"é": 1}
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match="utf-8"):
        read_json(file)


def test_pipes_devices_and_folders_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        start = time.monotonic()
        with pytest.raises(OSError, match=r"not a plain file|Is a directory"):
            read_bytes(path)
        assert time.monotonic() - start < 1


def test_limits_can_be_raised(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"0" * 1_500_000)
    monkeypatch.setenv("STEREOPSIS_MOST_MEGABYTES", "1")
    with pytest.raises(ValueError, match="set STEREOPSIS_MOST_MEGABYTES to read it"):
        read_bytes(tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"0" * 3_000_000)
    with pytest.raises(ValueError, match="unpacks to 3 MB, more than 1 MB"):
        check_archive(tmp_path / "b.npz")
    monkeypatch.setenv("STEREOPSIS_MOST_MEGABYTES", "4")
    assert len(read_bytes(tmp_path / "a")) == 1_500_000
    check_archive(tmp_path / "b.npz")
    with pytest.raises(ValueError, match="13000x13000 pixels, more than 100 megapixels"):
        check_pixels(13_000, 13_000)
    monkeypatch.setenv("STEREOPSIS_MOST_MEGAPIXELS", "170")
    check_pixels(13_000, 13_000)
    monkeypatch.setenv("STEREOPSIS_MOST_MEGAPIXELS", "many")
    with pytest.raises(ValueError, match="expected a positive whole number"):
        check_pixels(1, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", True),
        ("steps", 1e30),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", 1e30),
        ("learning_rate", "1e30"),
        ("learning_rate", 10**400),
        ("head_rate", True),
        ("warmup", float("-inf")),
        ("scenes", False),
    ],
)
def test_numbers_of_a_recipe(recipe_content, key, value):
    content = recipe_content("text")
    content["training"][key] = value
    with pytest.raises(RecipeError, match=key):
        parse_recipe(content)


def test_a_yes_in_a_list_is_no_number(recipe_content):
    content = recipe_content("text")
    content["model"]["view_grid"] = [True, True]
    with pytest.raises(RecipeError, match="view_grid"):
        parse_recipe(content)


def test_what_is_no_file_is_not_taken_for_an_absent_one(tmp_path):
    assert not is_file(tmp_path / "a")
    (tmp_path / "a").write_text("")
    assert is_file(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "loop", "."):
        with pytest.raises(OSError, match=r"not a plain file|symbolic links"):
            is_file(tmp_path / name)


@pytest.mark.parametrize("text", [BOMB, "name: a\nname: b\n", "[" * 10_000, "\x00", "- 1\n"])
def test_recipes_that_are_absurd(tmp_path, text):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=r"r\.yaml"):
        load_recipe(file)
    file.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(file)
