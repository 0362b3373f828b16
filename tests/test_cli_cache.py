"""Caches through the command line: made by either command, found by training, refused with the remedy."""

import json

import pytest
from typer.testing import CliRunner

from stereopsis.cli import app
from stereopsis.errors import CacheError


@pytest.fixture
def run():
    """Runs the command line in this process and gives what it printed, however it was wrapped."""

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    return call


def test_cache_then_train_without_asking_anybody(run, recipe_content, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps(recipe_content("text", "cross_view", "alignment", training__steps=2)))
    cache = f"teachers.cache={tmp_path / 'cache'}"
    train = ("train", recipe, "-o", tmp_path / "run", "-s", cache, "-s", "teachers.online=false", "--pictures", 0)
    with pytest.raises(CacheError, match="the cache has no latents at all"):
        run(*train)
    said = run("cache", recipe, "-s", cache)
    assert "latents of 'pixels'" in said
    assert "features of 'point_map'" in said
    run(*train)
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_prepare_asks_the_teachers_that_it_is_told(run, recipe_content, capture, tmp_path, monkeypatch):
    student = tmp_path / "student.yaml"
    student.write_text(json.dumps(recipe_content("alignment", training__steps=1)))
    options = ("--workers", 1, "--student", student, "--cache", tmp_path / "cache")
    prepare = ("prepare", capture, "-o", tmp_path / "scenes", "--proposals", "none", "--teacher", "point_map", *options)
    assert "features of 'point_map'" in run(*prepare)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert len(files) == 2
    assert "1 there already" in run(*prepare)
    assert files == {path: path.stat().st_mtime_ns for path in files}
    sources = json.dumps([{"path": str(tmp_path / "scenes")}])
    keys = (f"teachers.cache={tmp_path / 'cache'}", "teachers.online=false", f"data.sources={sources}")
    run("train", student, "-o", tmp_path / "run", "--pictures", 0, *(part for key in keys for part in ("-s", key)))
