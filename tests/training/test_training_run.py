"""Whole small trainings: what is repeated exactly, what is logged, what moves and what stays."""

import json
import shutil

import pytest
import torch
import yaml

from stereopsis.data.batch import Batch
from stereopsis.data.pack import POINTS, POINTS_VALID
from stereopsis.errors import RecipeError, RunFolderError, SceneError
from stereopsis.models.storage import load_model
from stereopsis.packs.build import blinded
from stereopsis.packs.targets import Teachers
from stereopsis.training.build import build_model, build_teachers
from stereopsis.training.recipe import load_recipe
from stereopsis.training.sources import open_folder
from stereopsis.training.train_run import build_packs, train
from stereopsis.training.trainer import SpatialTrainer

LOSSES = {"loss/text", "loss/grounding", "loss/vanilla", "loss/cross_view", "loss/birds_eye", "loss/alignment"}


def losses(line: dict) -> set[str]:
    return {key for key in line if key.startswith("loss/")}


def test_a_run_leaves_everything_that_it_can_be_understood_by(finished_run):
    folder = finished_run.folder
    assert {"recipe.yaml", "environment.json", "metrics.jsonl", "model", "checkpoints"} == {
        path.name for path in folder.iterdir()
    }
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0] or environment["versions"]["torch"]
    assert {"date", "command", "machine", "cpu_threads"} <= environment.keys()
    assert load_recipe(folder / "recipe.yaml").training.steps == 4
    assert "head_rate" in yaml.safe_load((folder / "recipe.yaml").read_text())["training"]  # defaults spelled out
    assert not finished_run.model.training
    assert {pack.scene_id for pack in finished_run.packs} == {f"room-{i:08d}" for i in range(4)}


def test_the_same_seed_repeats_every_number_and_another_seed_none(
    finished_run, make_recipe, log_of, weights_of, tmp_path
):
    changes = {"objectives__cross_view": {"every": 2}, "training__save_every": 2}
    train(make_recipe(**changes), tmp_path / "again", progress=False)
    train(make_recipe(**changes, seed=1), tmp_path / "other", progress=False)
    first, again, other = (log_of(folder) for folder in (finished_run.folder, tmp_path / "again", tmp_path / "other"))
    assert first == again
    assert len(first) == len(other) == 4
    assert all(a["loss"] != b["loss"] for a, b in zip(first, other, strict=True))
    stored, repeated = (weights_of(folder / "model") for folder in (finished_run.folder, tmp_path / "again"))
    assert stored.keys() == repeated.keys()
    assert all(torch.equal(stored[key], repeated[key]) for key in stored)


def test_checkpoints_do_not_change_a_run(finished_run, make_recipe, log_of, tmp_path):
    recipe = make_recipe(objectives__cross_view={"every": 2})
    train(recipe, tmp_path / "run", progress=False)
    assert log_of(tmp_path / "run") == log_of(finished_run.folder)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_every_objective_is_logged_by_itself_and_the_periodic_one_only_on_its_steps(finished_run, log_of):
    lines = log_of(finished_run.folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "loss/cross_view" in line] == [1, 3]
    for line in lines:
        assert LOSSES - {"loss/cross_view", "loss/grounding"} <= losses(line) <= LOSSES
    assert any("loss/grounding" in line for line in lines)


def test_the_total_is_the_weighted_sum_of_the_parts(make_recipe, log_of, tmp_path):
    weights = {"text": 0.5, "grounding": 2.0, "alignment": 3.0, "cross_view": 0.25}
    recipe = make_recipe(objectives={name: {"weight": weight} for name, weight in weights.items()}, training__steps=3)
    assert recipe.objectives.cross_view.every == 4  # the released default
    train(recipe, tmp_path / "run", progress=False)
    lines = log_of(tmp_path / "run")
    for line in lines:
        total = sum(weights[key.removeprefix("loss/")] * line[key] for key in losses(line))
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    assert ["loss/cross_view" in line for line in lines] == [True, False, False]


def test_one_pass_with_four_scenes_equals_four_passes_with_one(make_recipe, log_of, weights_of, tmp_path):
    """Hidden views and noise too: a scene draws its own, whoever shares its pass."""
    for name, scenes, accumulation in (("wide", 4, 1), ("deep", 1, 4)):
        recipe = make_recipe(
            objectives__cross_view={"every": 2},
            objectives__contrastive={"voxel": 0.5},
            objectives__relational={"samples": 8},
            training__scenes=scenes,
            training__accumulation=accumulation,
        )
        train(recipe, tmp_path / name, progress=False)
    wide, deep = log_of(tmp_path / "wide"), log_of(tmp_path / "deep")
    assert len(wide) == len(deep) == 4
    for a, b in zip(wide, deep, strict=True):
        assert losses(a) == losses(b)
        for key in (*losses(a), "loss", "grad_norm"):
            # float32 sums in another order, then four steps of AdamW: measured differences stay below 1e-4
            assert a[key] == pytest.approx(b[key], rel=1e-3), key
    one, other = weights_of(tmp_path / "wide" / "model"), weights_of(tmp_path / "deep" / "model")
    base = weights_of_base(recipe)
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=4e-4, msg=key)
    moved = max(float((one[f"model/{key}"] - tensor).abs().max()) for key, tensor in base.items())
    assert moved > 2e-3  # the steps themselves are far larger than the tolerance


def weights_of_base(recipe) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(f"{recipe.model.base}/model.safetensors")


def test_vision_alone_trains_without_a_word_and_learns(make_recipe, tiny_rooms, log_of, tmp_path):
    recipe = make_recipe(
        objectives={"cross_view": {"every": 1}, "birds_eye": {"repeats": 4}, "alignment": {}},
        data={"sources": [{"path": str(tiny_rooms), "text": False}], "views": 4},
        teachers={"latent": "rooms", "view_size": 32, "birdseye_size": 32},
        denoiser={"width": 48, "depth": 1, "heads": 2},
        training__steps=40,
        training__scenes=4,
        training__log_every=10,
        training__head_rate=1e-2,
    )
    run = train(recipe, tmp_path / "run", progress=False)
    assert all(pack.conversations == () for pack in run.packs)
    lines = log_of(tmp_path / "run")
    for line in lines:
        assert losses(line) == {"loss/cross_view", "loss/birds_eye", "loss/alignment"}
    # measured on another seed: 0.25, 0.75 and 0.75 of the means of the first ten steps
    for name, factor in (("alignment", 0.5), ("birds_eye", 0.9), ("cross_view", 0.9)):
        assert lines[-1][f"loss/{name}"] < factor * lines[1][f"loss/{name}"], name


def test_scenes_with_and_without_words_train_together(make_recipe, tiny_rooms, log_of, tmp_path):
    scenes = sorted(tiny_rooms.iterdir())
    sources = [{"path": str(scenes[0])}, {"path": str(scenes[1]), "text": False}]
    data = {"sources": sources, "views": 4, "conversations": 99}
    recipe = make_recipe("text", "grounding", "birds_eye", data=data, training__scenes=1, training__steps=4)
    run = train(recipe, tmp_path / "run", progress=False)
    assert [bool(pack.conversations) for pack in run.packs] == [True, False]
    lines = log_of(tmp_path / "run")
    with_words = ["loss/text" in line for line in lines]
    assert sorted(with_words) == [False, False, True, True]  # two scenes, one a step, two epochs
    assert all("loss/birds_eye" in line for line in lines)
    both = make_recipe("text", "birds_eye", data=data, training__scenes=2, training__steps=2)
    train(both, tmp_path / "both", progress=False)
    assert all(losses(line) == {"loss/text", "loss/birds_eye"} for line in log_of(tmp_path / "both"))


def test_the_frozen_tower_stays_and_every_other_part_moves(finished_run, make_recipe):
    recipe = make_recipe()
    before, after = build_model(recipe).state_dict(), finished_run.model.state_dict()
    changed = {key: not torch.equal(before[key], after[key]) for key in before}
    tower = {key for key in changed if "vision_tower" in key}
    assert tower
    assert not any(changed[key] for key in tower)
    still = {key for key in changed if key not in tower and not changed[key]}
    assert not still, still


def test_a_tower_that_is_trained_moves(make_recipe, tiny_base, tmp_path):
    recipe = make_recipe("text", model={"base": str(tiny_base), "train_vision": True}, training__steps=1)
    run = train(recipe, tmp_path / "run", progress=False)
    assert run.packs[0].encoder_tokens is None  # nothing may be cached where the tower changes
    before, after = build_model(recipe).state_dict(), run.model.state_dict()
    assert any("vision_tower" in key and not torch.equal(before[key], after[key]) for key in before)


def test_cached_vision_features_change_no_loss_beyond_half_precision(make_recipe, log_of, tmp_path):
    for name, cached in (("cached", True), ("fresh", False)):
        recipe = make_recipe("text", "alignment", training__cache_vision=cached, training__steps=2)
        run = train(recipe, tmp_path / name, progress=False)
        assert (run.packs[0].encoder_tokens is not None) == cached
    for a, b in zip(log_of(tmp_path / "cached"), log_of(tmp_path / "fresh"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-3)


def test_heads_have_a_learning_rate_of_their_own(make_recipe, tmp_path, monkeypatch):
    made: list[torch.optim.Optimizer] = []
    create = SpatialTrainer.create_optimizer

    def keep(self, model=None):
        made.append(create(self, model))
        return made[-1]

    monkeypatch.setattr(SpatialTrainer, "create_optimizer", keep)
    recipe = make_recipe(
        training__learning_rate=1e-4,
        training__head_rate=3e-3,
        training__weight_decay=0.1,
        training__warmup=0.0,
        training__schedule="constant",
        training__steps=1,
    )
    run = train(recipe, tmp_path / "run", progress=False)
    groups = {id(p): group for group in made[0].param_groups for p in group["params"]}
    trained = {name: p for name, p in run.model.named_parameters() if p.requires_grad}
    assert groups.keys() == {id(p) for p in trained.values()}
    for name, parameter in trained.items():
        head = name.startswith(("grounding.", "objectives."))
        assert groups[id(parameter)]["lr"] == (3e-3 if head else 1e-4), name
        if parameter.ndim < 2:
            assert groups[id(parameter)]["weight_decay"] == 0.0, name
        elif name.endswith(("q_proj.weight", "fc1.weight", "head.0.weight")):
            assert groups[id(parameter)]["weight_decay"] == 0.1, name


def test_a_rate_of_zero_keeps_the_backbone_while_heads_learn(make_recipe, tmp_path):
    recipe = make_recipe("grounding", "alignment", training__learning_rate=0.0)
    run = train(recipe, tmp_path / "run", progress=False)
    before, after = build_model(recipe).state_dict(), run.model.state_dict()
    for key in before:
        assert torch.equal(before[key], after[key]) == key.startswith("backbone."), key


def test_bfloat16_trains_and_keeps_float32_weights(make_recipe, log_of, tmp_path):
    run = train(make_recipe(training__precision="bf16", training__steps=2), tmp_path / "run", progress=False)
    assert all(p.dtype == torch.float32 for p in run.model.parameters())
    full = train(make_recipe(training__steps=2), tmp_path / "full", progress=False)
    assert full.model.device == run.model.device
    for a, b in zip(log_of(tmp_path / "run"), log_of(tmp_path / "full"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.05)
        assert a["loss"] != b["loss"]


def test_random_subsets_of_views_make_more_items_of_a_scene(make_recipe, tiny_rooms, tmp_path):
    scene = sorted(tiny_rooms.iterdir())[0]
    seen = []
    collate = SpatialTrainer.compute_loss

    class Watching(SpatialTrainer):
        def compute_loss(self, model, inputs: Batch, **options):
            seen.append(tuple(inputs.cameras[:, 0, 3].tolist()))
            return collate(self, model, inputs, **options)

    recipe = make_recipe(
        "alignment",
        data={"sources": [{"path": str(scene), "text": False}], "views": 2, "selection": "random", "subsets": 5},
        training__scenes=1,
        training__steps=5,
    )
    import stereopsis.training.train_run as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SpatialTrainer", Watching)
        run = train(recipe, tmp_path / "run", progress=False)
    assert len(run.packs[0].images) == 4
    assert all(len(views) == 2 for views in seen)
    assert 1 < len(set(seen)) <= 5


@pytest.mark.parametrize("objective", ["cross_view", "birds_eye", "alignment"])
def test_packs_without_an_objectives_target_stop_the_run_before_its_first_step(
    finished_run, make_recipe, tmp_path, objective
):
    bare = [blinded(pack) for pack in finished_run.packs]
    with pytest.raises(RecipeError, match=rf"objective '{objective}' needs the target '.*under 'teachers:'"):
        train(make_recipe("text", objective), tmp_path / "run", packs=bare, progress=False)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_blind_model_cannot_be_asked_to_reconstruct(make_recipe, tiny_base, tmp_path):
    recipe = make_recipe("text", "birds_eye", model={"base": str(tiny_base), "blind": True})
    with pytest.raises(RecipeError, match="'birds_eye' needs the target"):
        train(recipe, tmp_path / "run", progress=False)


def test_a_blind_run_sees_one_grey_view_and_trains_on_words(make_recipe, tiny_base, log_of, tmp_path):
    recipe = make_recipe("text", "grounding", model={"base": str(tiny_base), "blind": True}, training__steps=2)
    run = train(recipe, tmp_path / "run", progress=False)
    for pack in run.packs:
        assert len(pack.images) == 1
        assert bool((pack.images == 128).all())
        assert not bool(pack.coordinates_valid.any())
        assert not bool(pack.proposals.cells.any())
    assert all("loss/text" in line for line in log_of(tmp_path / "run"))
    assert load_model(run.folder / "model").settings.positions == "none"


def test_a_folder_that_holds_a_run_is_refused_unless_it_may_be_replaced(finished_run, make_recipe, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    recipe = make_recipe("text", training__steps=1)
    with pytest.raises(RunFolderError) as caught:
        train(recipe, folder, progress=False)
    for part in (str(folder), "--resume", "--overwrite"):
        assert part in str(caught.value)
    assert (folder / "recipe.yaml").read_text() == (finished_run.folder / "recipe.yaml").read_text()
    train(recipe, folder, overwrite=True, packs=finished_run.packs, progress=False)
    assert load_recipe(folder / "recipe.yaml") == recipe
    assert not list((folder / "checkpoints").iterdir())


def test_a_run_is_replaced_only_by_one_that_can_start(finished_run, make_recipe, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    bare = [blinded(pack) for pack in finished_run.packs]
    with pytest.raises(RecipeError, match="needs the target"):
        train(make_recipe("text", "alignment"), folder, overwrite=True, packs=bare, progress=False)
    assert {path.name for path in folder.iterdir()} == {path.name for path in finished_run.folder.iterdir()}


def test_a_folder_with_other_things_is_never_touched(make_recipe, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunFolderError, match="is not empty and holds no run"):
            train(make_recipe("text"), tmp_path, overwrite=overwrite, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_packs_follow_the_recipe(make_recipe, tiny_rooms):
    recipe = make_recipe(
        "text",
        "cross_view",
        data={"sources": [{"path": str(tiny_rooms)}], "views": 2, "tasks": ["sqa3d", "scanrefer"]},
    )
    model, teachers = build_model(recipe), build_teachers(recipe)
    packs = build_packs(recipe, model, teachers, recipe.data.sources)
    for pack, scene in zip(packs, open_folder(tiny_rooms), strict=True):
        assert pack.scene_id == scene.id
        assert pack.frame_names == (scene.frames[0].name, scene.frames[3].name)  # uniform over the frame list
        wanted = [a.id for a in scene.annotations if a.task in ("sqa3d", "scanrefer")]
        assert [c.id for c in pack.conversations] == wanted
        assert pack.view_targets["view_latents"].shape == (2, 2, 2, 4 * 3 * 8 * 8)
        assert pack.scene_targets["birdseye_latents"].shape == (2, 2, 4 * 3 * 8 * 8)
        assert pack.encoder_tokens.shape == (2, 6, 6, 48)
    bare = build_packs(recipe, model, Teachers(), recipe.data.sources, tasks=("scanqa",))
    assert set(bare[0].view_targets) == {POINTS, POINTS_VALID}, "no teacher, no targets but the cells' own points"
    assert {c.task for c in bare[0].conversations} == {"scanqa"}


def test_scenes_that_are_not_there_are_an_error_for_people(make_recipe, tmp_path):
    recipe = make_recipe("text", data={"sources": [{"path": str(tmp_path / "nowhere")}]})
    with pytest.raises(SceneError, match="nowhere: does not exist"):
        train(recipe, tmp_path / "run", progress=False)
