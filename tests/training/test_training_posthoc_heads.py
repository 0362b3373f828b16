"""Heads of finished runs, opened again, and heads that are fitted to frozen models."""

import shutil

import pytest
import torch

from stereopsis.errors import CheckpointError, RecipeError, RunFolderError
from stereopsis.models.storage import load_model
from stereopsis.training.posthoc_heads import (
    fit_denoiser,
    load_heads,
    open_with_heads,
    prepare_heads,
    reconstructions_only,
    save_heads,
)
from stereopsis.training.train_run import train


def losses(model, packs, names=("cross_view", "birds_eye"), seed=3):
    batch = model.collator()([pack.replace(conversations=()) for pack in packs])
    with torch.no_grad():
        return {name: loss.sum for name, loss in model(batch, due=names, seed=seed).items()}


def test_a_reopened_run_has_the_losses_that_it_ended_with(finished_run):
    recipe, model, teachers = open_with_heads(finished_run.folder)
    assert recipe.name == "tiny"
    assert teachers.latent is not None
    assert teachers.features is None  # alignment's teacher is not needed
    expected = losses(finished_run.model.eval(), finished_run.packs[:2])
    torch.testing.assert_close(losses(model, finished_run.packs[:2]), expected, rtol=1e-5, atol=1e-6)


def test_only_reconstructions_are_reopened(finished_run):
    _, model, _ = open_with_heads(finished_run.folder)
    assert {name for name, _ in model.objectives} == {"vanilla", "cross_view", "birds_eye"}


def test_a_run_that_reconstructs_nothing_says_so(make_recipe, tmp_path):
    train(make_recipe("text", training__steps=1), tmp_path / "run", progress=False)
    with pytest.raises(RecipeError, match=r"no reconstruction objective \(it has text\).*--control"):
        open_with_heads(tmp_path / "run")


def test_a_run_without_its_heads_says_so(finished_run, tmp_path):
    shutil.copytree(finished_run.folder, tmp_path / "run")
    (tmp_path / "run" / "model" / "training_heads.safetensors").unlink()
    with pytest.raises(RunFolderError, match="heads were removed"):
        open_with_heads(tmp_path / "run")


def test_heads_of_another_size_are_refused(finished_run):
    with pytest.raises(CheckpointError, match="another architecture"):
        open_with_heads(finished_run.folder, overrides=["denoiser.depth=2"])


def test_idle_steps_are_left_out(make_recipe):
    recipe = make_recipe("text", "cross_view", objectives__cross_view={"every": 4}, training__steps=30)
    plan = reconstructions_only(recipe)
    assert (plan.training.steps, plan.objectives.cross_view.every) == (8, 1)
    both = reconstructions_only(make_recipe("text", "cross_view", "birds_eye", objectives__cross_view={"every": 4}))
    assert (both.training.steps, both.objectives.cross_view.every) == (4, 4)


@pytest.fixture(scope="module")
def fitted(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    model = load_model(finished_run.folder / "model")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recipe, _, _ = open_with_heads(finished_run.folder, overrides=["training.head_rate=0.02"])
    fit_denoiser(model, finished_run.packs, recipe, folder, steps=60)
    return model, before, recipe, folder


def test_fitting_changes_heads_and_nothing_else(fitted, finished_run):
    model, before, recipe, folder = fitted
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert {key.split(".")[0] for key in after.keys() - before.keys()} == {"objectives"}
    assert (folder / "metrics.jsonl").is_file()
    again = load_model(finished_run.folder / "model")
    fit_denoiser(again, finished_run.packs, recipe, folder / "short", steps=1)
    mask = "objectives.members.cross_view.mask_token"
    assert not torch.equal(again.state_dict()[mask], after[mask])  # the mask token learns, too


def test_a_fitted_denoiser_beats_a_fresh_one(fitted, finished_run):
    model, _, recipe, folder = fitted
    fresh = load_model(finished_run.folder / "model")
    fit_denoiser(fresh, finished_run.packs, recipe, folder / "fresh", steps=1)
    ours, theirs = (
        torch.tensor([list(losses(each, finished_run.packs, seed=seed).values()) for seed in range(8)]).mean(dim=0)
        for each in (model, fresh)
    )
    assert (ours < 0.995 * theirs).all()


def test_saved_heads_are_read_back(fitted, finished_run, tmp_path):
    model, _, recipe, _ = fitted
    _, _, teachers = open_with_heads(finished_run.folder)
    path = save_heads(model, tmp_path)
    again = load_model(finished_run.folder / "model")
    prepare_heads(again, recipe, teachers, path)
    load_heads(again, path)
    torch.testing.assert_close(losses(again.eval(), finished_run.packs), losses(model, finished_run.packs))
