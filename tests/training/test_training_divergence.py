"""Losses and gradients that are no numbers: the run stops before a weight is touched, or leaves the step out."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stereopsis.errors import DivergenceError
from stereopsis.objectives.alignment import FeatureAlignment
from stereopsis.objectives.reconstruction import BirdsEye
from stereopsis.objectives.text import TextLoss
from stereopsis.training.checkpoints import newest_checkpoint
from stereopsis.training.divergence import MOST_IN_A_ROW
from stereopsis.training.train_run import train


class _Spoilt(torch.autograd.Function):
    """The number as it is, and NaN for a gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


@pytest.fixture
def spoil(monkeypatch):
    """A function that spoils the loss (or the gradient) of an objective in some of its calls, counted from 1."""

    def apply(objective, calls, how=math.nan):
        honest, count = objective.loss, itertools.count(1)

        def loss(self, outputs, batch, generator):
            found = honest(self, outputs, batch, generator)
            if next(count) not in calls:
                return found
            spoilt = _Spoilt.apply(found.sum) if how == "gradient" else found.sum + how
            return dataclasses.replace(found, sum=spoilt)

        monkeypatch.setattr(objective, "loss", loss)

    return apply


def lines(folder: Path) -> list[dict]:
    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def finite(folder: Path) -> bool:
    files = list(folder.glob("*.safetensors"))
    assert files
    return all(bool(torch.isfinite(t.float()).all()) for file in files for t in load_file(file).values())


@pytest.mark.parametrize("how", [math.nan, math.inf, "gradient"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_training_stops_at_the_first_step_that_is_not_finite(make_recipe, spoil, tmp_path, how, accumulation):
    recipe = make_recipe(
        "text", "alignment", training__accumulation=accumulation, training__scenes=1, training__save_every=1
    )
    # the last pass of the third step, and for the gradient the passes in which it is looked for again
    first = 3 * accumulation
    spoil(FeatureAlignment, range(first, first + 1 + accumulation), how)
    with pytest.raises(DivergenceError) as raised:
        train(recipe, tmp_path / "run", progress=False)
    said = str(raised.value)
    assert "diverged at step 3" in said
    assert f"the {'gradient of ' if how == 'gradient' else 'loss of objective'}" in said
    assert "objective 'alignment' (scenes room-" in said
    assert "'text'" not in said
    kept = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert kept is not None
    assert kept.name == "checkpoint-2"
    assert str(kept) in said
    assert finite(kept)
    assert not (tmp_path / "run" / "model").exists()
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2]


def test_vision_only_training_stops_too_and_says_that_nothing_was_kept(make_recipe, spoil, tmp_path, tiny_rooms):
    recipe = make_recipe("birds_eye", data__sources=[{"path": str(tiny_rooms), "text": False}])
    spoil(BirdsEye, {2})
    with pytest.raises(DivergenceError, match=r"step 2: the loss of objective 'birds_eye'.*training\.save_every=N"):
        train(recipe, tmp_path / "run", progress=False)


def test_a_step_that_is_left_out_changes_no_weight_and_is_counted(make_recipe, spoil, tmp_path):
    recipe = make_recipe(
        "text", training__steps=3, training__on_nonfinite="skip", training__save_every=1, training__keep=4
    )
    spoil(TextLoss, {2})
    folder = train(recipe, tmp_path / "run", progress=False).folder
    log = lines(folder)
    assert [line.get("skipped_steps") for line in log] == [None, 1, None, None]
    assert log[1]["skipped/text"] == 1
    assert "loss/text" not in log[1]
    before, after, end = (folder / "checkpoints" / f"checkpoint-{n}" / "model.safetensors" for n in (1, 2, 3))
    weights = load_file(after)
    assert all(torch.equal(weights[key], tensor) for key, tensor in load_file(before).items())
    assert any(not torch.equal(weights[key], tensor) for key, tensor in load_file(end).items())
    assert finite(folder / "model")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_left_out_steps_under_every_optimizer(make_recipe, spoil, tmp_path, optimizer):
    recipe = make_recipe(
        "text",
        training__steps=2,
        training__on_nonfinite="skip",
        training__optimizer=optimizer,
        training__weight_decay=0.1,
        training__clip=0.0,
    )
    spoil(TextLoss, {1}, "gradient")
    folder = train(recipe, tmp_path / "run", progress=False).folder
    assert [line.get("skipped_steps") for line in lines(folder)] == [1, None, None]
    assert finite(folder / "model")


def test_too_many_in_a_row_are_no_accident(make_recipe, spoil, tmp_path):
    recipe = make_recipe("text", training__steps=3, training__on_nonfinite="skip")
    spoil(TextLoss, range(1, 99))
    with pytest.raises(DivergenceError, match="3 steps in a row, up to step 3"):
        train(recipe, tmp_path / "short", progress=False)
    long = make_recipe("text", training__steps=MOST_IN_A_ROW + 5, training__on_nonfinite="skip")
    with pytest.raises(DivergenceError, match=f"{MOST_IN_A_ROW} steps in a row, up to step {MOST_IN_A_ROW},"):
        train(long, tmp_path / "long", progress=False)


def test_a_run_that_diverged_goes_on_and_leaves_the_step_out(make_recipe, spoil, tmp_path):
    changes = {"training__steps": 4, "training__save_every": 1}
    spoil(TextLoss, {3, 4})
    with pytest.raises(DivergenceError, match="step 3"):
        train(make_recipe("text", **changes), tmp_path / "run", progress=False)
    recipe = make_recipe("text", training__on_nonfinite="skip", **changes)
    run = train(recipe, tmp_path / "run", resume=True, progress=False)
    assert [line.get("skipped_steps") for line in lines(run.folder)] == [None, None, 1, None, None]
    assert "on_nonfinite: skip" in (run.folder / "recipe.yaml").read_text()


def test_weights_that_the_last_step_broke_are_not_written(make_recipe, tmp_path, monkeypatch):
    """AdamW steps by the rate whatever the gradient is: a rate beyond float32 makes every weight infinite."""
    monkeypatch.setattr(torch.optim.AdamW, "step", _break)
    recipe = make_recipe("text", training__steps=1)
    with pytest.raises(DivergenceError, match=r"after step 1 backbone\..* is not finite"):
        train(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "model").exists()


def _break(self, closure=None):
    for group in self.param_groups:
        for parameter in group["params"]:
            parameter.data.fill_(math.inf)
