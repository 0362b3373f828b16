"""Interrupted runs: what is continued equals what was never interrupted, and what cannot be continued is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from transformers import TrainerControl, TrainerState, TrainingArguments

from stereopsis.errors import CheckpointError, RunFolderError
from stereopsis.training.callbacks import MetricsLog
from stereopsis.training.checkpoints import newest_checkpoint
from stereopsis.training.recipe import load_recipe
from stereopsis.training.train_run import train
from stereopsis.weights.manifest import write_manifest


@pytest.fixture(scope="module")
def long_recipe(make_recipe):
    changes = {"steps": 9, "save_every": 1, "keep": 20}
    return make_recipe(
        objectives={"text": {}, "grounding": {}, "cross_view": {"every": 2}, "birds_eye": {}},
        **{f"training__{key}": value for key, value in changes.items()},
    )


@pytest.fixture(scope="module")
def whole(long_recipe, tmp_path_factory) -> Path:
    """An uninterrupted run that crosses the end of an epoch, with a checkpoint after every step."""
    return train(long_recipe, tmp_path_factory.mktemp("whole") / "run", progress=False).folder


@pytest.fixture
def cut(whole: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that leaves a copy as if the run had died after ``step``, its log ``ahead`` lines further on."""

    def make(step: int, *, ahead: int = 1, tail: str = "", name: str = "run") -> Path:
        folder = tmp_path / name
        shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("model"))
        for checkpoint in (folder / "checkpoints").iterdir():
            if int(checkpoint.name.rpartition("-")[2]) > step:
                shutil.rmtree(checkpoint)
        log = folder / "metrics.jsonl"
        log.write_text("".join(f"{line}\n" for line in log.read_text().splitlines()[: step + ahead]) + tail)
        return folder

    return make


@pytest.fixture
def same_as(whole, log_of, weights_of) -> Callable[[Path], None]:
    """A function that asserts that a run ended exactly like the uninterrupted one."""

    def check(folder: Path, expected: Path = whole) -> None:
        assert log_of(folder) == log_of(expected)
        ours, theirs = weights_of(folder / "model"), weights_of(expected / "model")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)

    return check


def test_a_run_resumes_in_the_middle_at_the_end_and_after_the_end_of_an_epoch(whole, cut, same_as, log_of, long_recipe):
    boundary = next(line["step"] for line in log_of(whole) if line["epoch"] >= 1.0)
    assert 1 < boundary < 8
    for step in (boundary - 2, boundary, boundary + 1):
        folder = cut(step, name=f"run{step}")
        train(long_recipe, folder, resume=True, progress=False)
        same_as(folder)


def test_a_resumed_run_logs_no_step_twice_even_after_half_a_line(cut, same_as, long_recipe):
    folder = cut(4, ahead=3, tail='{"step": 8, "seconds": 1.2, "loss": 3.')
    train(long_recipe, folder, resume=True, progress=False)
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [*range(1, 10), 9]  # the last line sums the run up
    same_as(folder)


def test_a_run_that_died_before_its_first_checkpoint_starts_again(cut, same_as, long_recipe):
    folder = cut(0, ahead=2)
    train(long_recipe, folder, resume=True, progress=False)
    same_as(folder)


def test_a_half_written_checkpoint_is_passed_over_and_written_anew(cut, same_as, long_recipe):
    folder = cut(5)
    newest = folder / "checkpoints" / "checkpoint-5"
    (newest / "complete").unlink()
    (newest / "optimizer.pt").unlink()
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert newest_checkpoint(folder / "checkpoints") == folder / "checkpoints" / "checkpoint-4"
    train(long_recipe, folder, resume=True, progress=False)
    same_as(folder)
    assert (newest / "complete").is_file()
    assert len(weights.read_bytes()) > 100


def test_resuming_a_finished_run_changes_nothing(cut, same_as, long_recipe):
    folder = cut(9)
    train(long_recipe, folder, resume=True, progress=False)
    same_as(folder)


def test_the_newest_checkpoint_is_newest_by_number_and_complete(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere") is None
    for step, complete in ((9, True), (10, True), (100, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if complete:
            (folder / "complete").touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_every_checkpoint_of_a_run_is_marked_and_old_ones_go(make_recipe, tmp_path):
    recipe = make_recipe("text", training__save_every=1, training__keep=2, training__steps=3)
    train(recipe, tmp_path / "run", progress=False)
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [path.name for path in kept] == ["checkpoint-2", "checkpoint-3"]
    assert all((path / "complete").is_file() for path in kept)


POSE_AND_FLOW = {
    "objectives__cross_view": {"conditioning": "pose", "grounding": "skip", "every": 3},
    "denoiser": {"width": 16, "depth": 1, "heads": 2, "diffusion": "flow", "dropout": 0.2},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"training__optimizer": "muon"},
        {"training__accumulation": 2, "training__scenes": 1},
        {"training__precision": "bf16"},
        POSE_AND_FLOW,
        # eight items are two steps: the run is cut in the middle of the second epoch, which has an order of its own
        {
            "data__vision_only": 0.5,
            "data__conversations": 100,
            "training__scenes": 4,
            "training__steps": 5,
            "training__save_every": 3,
        },
        {"data__group_by_length": True, "data__conversations": 3, "training__steps": 5, "training__save_every": 3},
    ],
)
def test_other_ways_to_train_resume_as_exactly(make_recipe, same_as, tmp_path, changes):
    settings = {"training__steps": 4, "training__save_every": 2, "training__keep": 5, **changes}
    recipe = make_recipe(**settings)
    folder, copy = tmp_path / "run", tmp_path / "copy"
    train(recipe, folder, progress=False)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("model", f"checkpoint-{recipe.training.steps}"))
    train(recipe, copy, resume=True, progress=False)
    same_as(copy, folder)


def test_a_killed_run_continues_as_if_nothing_had_happened(recipe_content, same_as, tmp_path):
    """SIGKILL to `stereopsis train` in the middle; the other half runs here."""
    content = recipe_content("text", "cross_view", "birds_eye", training__steps=40, training__save_every=7)
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(content))  # JSON is YAML
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "stereopsis", "train", str(file), "-o", str(folder), "--pictures", "0"]
    with (tmp_path / "output.txt").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            _wait_for_lines(folder / "metrics.jsonl", 10, process, tmp_path / "output.txt")
        finally:
            process.kill()
            process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "model").exists()
    reached = len((folder / "metrics.jsonl").read_text().splitlines())
    assert 10 <= reached < 40
    assert newest_checkpoint(folder / "checkpoints") is not None
    recipe = load_recipe(file)
    train(recipe, folder, resume=True, progress=False)
    train(recipe, tmp_path / "whole", progress=False)
    same_as(folder, tmp_path / "whole")


def _wait_for_lines(file: Path, count: int, process: subprocess.Popen, output: Path) -> None:
    until = time.monotonic() + 240
    while not (file.is_file() and file.read_bytes().count(b"\n") >= count):
        if process.poll() is not None:
            pytest.fail(f"training ended before it could be killed:\n{output.read_text()[-3000:]}")
        if time.monotonic() > until:
            pytest.fail(f"training did not reach step {count}:\n{output.read_text()[-3000:]}")
        time.sleep(0.005)


def test_a_run_is_resumed_with_its_own_recipe_only(cut, long_recipe):
    folder = cut(3)
    before = (folder / "metrics.jsonl").read_text()
    other = long_recipe.model_copy(update={"seed": 5})
    with pytest.raises(RunFolderError) as caught:
        train(other, folder, resume=True, progress=False)
    assert "a run of another recipe" in str(caught.value)
    assert str(folder / "recipe.yaml") in str(caught.value)
    assert (folder / "metrics.jsonl").read_text() == before


def test_a_recipe_that_says_the_same_in_other_words_resumes(cut, same_as, long_recipe):
    """For example one that an earlier version wrote, before a new setting got its default."""
    folder = cut(8)
    content = yaml.safe_load((folder / "recipe.yaml").read_text())
    del content["training"]["weight_decay"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    train(long_recipe, folder, resume=True, progress=False)
    same_as(folder)


def test_there_must_be_something_to_resume(long_recipe, tmp_path):
    with pytest.raises(RunFolderError, match="holds no run to resume; leave --resume out"):
        train(long_recipe, tmp_path / "nothing", resume=True, progress=False)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("size", "words"), [({"layers": 1}, "another backbone"), ({"dim": 24, "mlp": 48}, "another backbone")]
)
def test_a_checkpoint_of_another_backbone_is_refused(
    make_recipe, make_tiny_base, cut, long_recipe, tmp_path, size, words
):
    recipe = make_recipe("text", model__base=str(make_tiny_base(**size)), training__steps=1, training__save_every=1)
    other = train(recipe, tmp_path / "other", progress=False).folder
    folder = cut(1)
    shutil.copytree(other / "checkpoints" / "checkpoint-1", folder / "checkpoints" / "checkpoint-1", dirs_exist_ok=True)
    with pytest.raises(CheckpointError) as caught:
        train(long_recipe, folder, resume=True, progress=False)
    assert words in str(caught.value)
    assert "checkpoint-1" in str(caught.value)


def test_a_checkpoint_with_other_training_heads_is_refused(make_recipe, cut, long_recipe, tmp_path):
    recipe = make_recipe(
        "text", "birds_eye", denoiser={"width": 12, "depth": 1, "heads": 2}, training__steps=1, training__save_every=1
    )
    other = train(recipe, tmp_path / "other", progress=False).folder
    folder = cut(1)
    heads = "checkpoints/checkpoint-1/training_heads.safetensors"
    shutil.copy(other / heads, folder / heads)
    write_manifest((folder / heads).parent, step=1)
    with pytest.raises(CheckpointError, match=r"training_heads\.safetensors belongs to another architecture"):
        train(long_recipe, folder, resume=True, progress=False)


def begin(log: MetricsLog, folder: Path, step: int) -> None:
    state = TrainerState(global_step=step, is_world_process_zero=True)
    log.on_train_begin(TrainingArguments(output_dir=str(folder), use_cpu=True), state, TrainerControl())


def test_the_log_forgets_what_will_be_repeated_and_what_cannot_be_read(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 1.0 / step}) for step in (1, 2, 3)]
    file.write_text("\n".join([*lines, "[1, 2]", '{"loss": 1}', '{"step": 4, "lo']))
    begin(MetricsLog(tmp_path), tmp_path, 2)
    assert file.read_text() == "".join(f"{line}\n" for line in lines[:2])
    begin(MetricsLog(tmp_path), tmp_path, 0)
    assert file.read_text() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
