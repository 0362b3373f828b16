"""Runs that take more steps than they were planned for, and runs that start from another run's weights."""

import json
import shutil

import pytest
import torch

from stereopsis.errors import CheckpointError, RunFolderError
from stereopsis.training.preflight import check_places
from stereopsis.training.run_folder import start_from
from stereopsis.training.train_run import train


@pytest.fixture(scope="module")
def planned(make_recipe):
    """A function that gives the recipe for a number of steps, at a constant rate."""

    def recipe(steps: int, **changes):
        constant = {"steps": steps, "save_every": 1, "keep": 20, "schedule": "constant", "warmup": 0.0}
        return make_recipe(
            objectives={"text": {}, "cross_view": {}}, **{f"training__{k}": v for k, v in constant.items()}, **changes
        )

    return recipe


@pytest.fixture(scope="module")
def short(planned, tmp_path_factory):
    return train(planned(3), tmp_path_factory.mktemp("short") / "run", progress=False).folder


def test_more_steps_are_what_a_longer_plan_would_have_been(short, planned, log_of, weights_of, tmp_path):
    whole = train(planned(6), tmp_path / "whole", progress=False).folder
    folder = tmp_path / "run"
    shutil.copytree(short, folder)
    train(planned(6), folder, resume=True, progress=False)
    assert log_of(folder) == log_of(whole)
    ours, theirs = weights_of(folder / "model"), weights_of(whole / "model")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert "steps: 6" in (folder / "recipe.yaml").read_text()


def test_what_decides_the_numbers_may_not_change(short, planned):
    with pytest.raises(RunFolderError, match=r"may change: training\.keep, log_every, .*report_to, .*threads"):
        train(planned(6, training__learning_rate=1.0), short, resume=True, progress=False)
    with pytest.raises(RunFolderError, match=r"has taken 3 steps already; ask for so many or more, found 2"):
        train(planned(2), short, resume=True, progress=False)


def test_a_finished_run_without_checkpoints_says_how_to_go_on(short, planned, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(short, folder, ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(RunFolderError, match=f"--init-from {folder} --output ANOTHER"):
        train(planned(6), folder, resume=True, progress=False)


def test_a_run_starts_from_another_ones_weights_and_heads(short, planned, make_recipe, weights_of, tmp_path):
    start = dict(line.split("=", 1) for line in start_from(short))
    assert start == {"model.base": json.dumps(str(short / "model")), "model.heads": "base"}
    model = {"base": str(short / "model"), "heads": "base"}
    still = planned(1, model=model, training__learning_rate=1e-12, training__head_rate=1e-12, training__weight_decay=0)
    folder = train(still, tmp_path / "run", progress=False).folder
    ours, theirs = weights_of(folder / "model"), weights_of(short / "model")
    assert ours.keys() == theirs.keys()
    for key in theirs:
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=1e-6)


def test_heads_of_what_is_trained_now_are_fresh_where_the_base_has_none(short, make_recipe, tiny_base, tmp_path):
    model = {"base": str(short / "model"), "heads": "base"}
    both = make_recipe(objectives={"text": {}, "cross_view": {}, "birds_eye": {}}, model=model, training__steps=1)
    train(both, tmp_path / "run", progress=False)  # the denoiser is the base's, what birds_eye adds is new
    with pytest.raises(CheckpointError, match="the base has none"):
        check_places(make_recipe("text", model={"base": str(tiny_base), "heads": "base"}))


def test_there_must_be_a_finished_run_to_start_from(tmp_path):
    with pytest.raises(RunFolderError, match="holds no finished run"):
        start_from(tmp_path)
