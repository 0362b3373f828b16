"""``stereopsis reconstruct``, as a person would use it."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from stereopsis.cli import app
from stereopsis.errors import StereopsisError
from stereopsis.training.train_run import train


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["reconstruct", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture(scope="module")
def baseline(make_recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "baseline"
    train(make_recipe("text", "grounding", training__steps=2), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def written(finished_run, baseline, tiny_rooms, tmp_path_factory):
    output = tmp_path_factory.mktemp("pictures") / "out"
    scenes = [tiny_rooms / "room-00000000", tiny_rooms / "room-00000001"]
    options = ["--seeds", 2, "--samples", 2, "--steps", 2, "--by-steps", "1,2", "--control", baseline]
    return output, call(finished_run.folder, *scenes, "-o", output, *options)


def test_every_target_has_its_pictures_and_figures(written):
    output, said = written
    record = json.loads((output / "reconstruct.json").read_text())
    targets = record["targets"]
    assert [(t["scene_id"], t["seed"], t["kind"]) for t in targets] == [
        (f"room-{scene:08d}", seed, kind)
        for scene in range(2)
        for seed in range(2)
        for kind in ("masked_view", "birds_eye")
    ]
    assert {"sample", "mean of 2", "baseline: sample", "baseline: mean of 2"} <= targets[0]["figures"].keys()
    assert list(targets[0]["by_steps"]) == ["1", "2"]
    page = (output / "index.html").read_text()
    for target in targets:
        for key in ("picture", "strip"):
            with Image.open(output / target[key]) as picture:
                assert picture.width > 300
            assert target[key] in page
    assert "mean of 2" in said
    assert record["date"]


def test_an_output_that_is_there_is_kept_and_a_fitted_control_is_reused(written, finished_run, baseline, tiny_rooms):
    output, _ = written
    scene = tiny_rooms / "room-00000000"
    with pytest.raises(StereopsisError, match="--overwrite"):
        call(finished_run.folder, scene, "-o", output)
    heads = output / "control-baseline" / "training_heads.safetensors"
    before = json.loads((output / "reconstruct.json").read_text())["targets"][0]["figures"]
    stamp = heads.stat().st_mtime_ns
    options = ["--samples", 2, "--steps", 2, "--by-steps", "", "--control", baseline]
    call(finished_run.folder, scene, "-o", output, *options, "--overwrite")
    assert heads.stat().st_mtime_ns == stamp
    after = json.loads((output / "reconstruct.json").read_text())["targets"][0]["figures"]
    assert after["baseline: sample"] == pytest.approx(before["baseline: sample"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "--rooms"),
        (["--by-steps", "1,x"], "whole numbers"),
        (["--by-steps", "0"], r"1\.\.1000"),
    ],
)
def test_what_cannot_be_done_is_said(finished_run, tmp_path, options, reason):
    with pytest.raises(StereopsisError, match=reason):
        call(finished_run.folder, "-o", tmp_path / "out", *options)


def test_a_run_without_reconstructions_is_refused(baseline, tiny_rooms, tmp_path):
    with pytest.raises(StereopsisError, match="no reconstruction objective"):
        call(baseline, tiny_rooms, "-o", tmp_path / "out")


def test_a_control_that_sees_otherwise_is_refused(finished_run, baseline, tiny_rooms, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(baseline, other)
    (other / "model" / "manifest.json").unlink()  # it would tell that the file was changed
    config = other / "model" / "spatial_config.json"
    config.write_text(config.read_text().replace('"depth"', '"none"'))
    with pytest.raises(StereopsisError, match="sees scenes differently"):
        call(finished_run.folder, tiny_rooms / "room-00000000", "-o", tmp_path / "out", "--control", other)
