"""A model folder is evaluated without a run: a base, a converted checkpoint, a plain Hugging Face model."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from stereopsis.errors import CheckpointError, RunFolderError, StereopsisError
from stereopsis.evaluation.evaluate_run import Request, execute, make_plan
from stereopsis.evaluation.predictors import Failure, ModelPredictor
from stereopsis.evaluation.questions import questions
from stereopsis.models.released import convert_from_released, convert_to_released
from stereopsis.report import text_table, write_report
from stereopsis.training.run_folder import TINY_BASE


def plan_of(folder: Path, rooms: Path, **options):
    return make_plan(Request(model=str(folder), scenes=rooms, meteor=False, precision="fp32", **options))


@pytest.fixture(scope="module")
def plain(tiny_base, tmp_path_factory) -> Path:
    """The same base as somebody without this package has it."""
    folder = tmp_path_factory.mktemp("plain") / "somebody"
    shutil.copytree(tiny_base, folder)
    for name in ("spatial_config.json", "spatial.safetensors", "manifest.json"):
        (folder / name).unlink()
    return folder


def test_a_model_folder_is_evaluated_and_reported(tiny_base, tiny_rooms, tmp_path):
    plan = plan_of(tiny_base, tiny_rooms, output=tmp_path / "out", overrides=("data.views=4",), limit=2)
    assert plan.recipe.model.base == str(tiny_base)
    assert (plan.recipe.model.positions, plan.recipe.model.view_grid) == ("depth", (3, 3))
    execute(plan)
    summary = json.loads((tmp_path / "out" / "evaluation" / "summary.json").read_text())
    assert set(summary["tasks"]) == set(plan.recipe.evaluation.tasks)
    assert "scanrefer" in summary["tasks"]
    assert text_table(tmp_path / "out")
    assert write_report(tmp_path / "out").is_file()
    assert not (tiny_base / "evaluation").exists()


def test_a_plain_model_speaks_without_positions_and_does_not_point(plain, tiny_rooms, tmp_path):
    plan = plan_of(plain, tiny_rooms, output=tmp_path / "out", overrides=("data.views=2",), limit=1)
    assert plan.recipe.model.positions == "none"
    assert set(plan.recipe.evaluation.tasks) == {"sqa3d", "scanqa", "scan2cap"}
    execute(plan)
    assert (tmp_path / "out" / "evaluation" / "summary.json").is_file()
    with pytest.raises(StereopsisError, match=r"no grounding head .* cannot point at boxes \(scanrefer\)"):
        plan_of(plain, tiny_rooms, benchmarks="scanrefer,sqa3d")


def test_a_converted_checkpoint_sees_what_the_released_one_does(tiny_rooms, tmp_path):
    convert_to_released(TINY_BASE, tmp_path / "released")
    convert_from_released(tmp_path / "released", tmp_path / "ours")
    plan = plan_of(tmp_path / "ours", tiny_rooms)
    assert (plan.recipe.data.views, plan.recipe.name) == (32, "ours")
    assert plan.output == Path("ours-evaluation")
    with pytest.raises(CheckpointError, match="stereopsis convert"):
        plan_of(tmp_path / "released", tiny_rooms)


def test_a_run_s_model_and_checkpoints_are_seen_through_the_run(finished_run, tiny_rooms):
    run = finished_run.folder
    assert plan_of(run / "model", tiny_rooms).output == run
    checkpoint = run / "checkpoints" / "checkpoint-2"
    plan = plan_of(checkpoint, tiny_rooms)
    assert plan.recipe.data.views == finished_run_views(run)
    assert plan.output == Path("checkpoint-2-evaluation")


def finished_run_views(run: Path) -> int:
    from stereopsis.training.recipe import load_recipe

    return load_recipe(run / "recipe.yaml").data.views


def test_a_folder_that_is_neither_is_told_what_was_expected(tiny_rooms, tmp_path):
    with pytest.raises(RunFolderError, match=r"no finished run .* and no model .*converted checkpoint"):
        plan_of(tmp_path, tiny_rooms)
    with pytest.raises(StereopsisError, match=r"unknown key 'data.vews' .did you mean 'views'"):
        plan_of(TINY_BASE, tiny_rooms, overrides=("data.vews=3",))


def test_one_bad_question_leaves_its_scene_s_others_alone(trained, rooms, config):
    """Reserved words are words; a question that cannot be asked fails alone."""
    (asked,) = questions(rooms[:1], ["sqa3d", "scanqa", "scanrefer"])
    odd = dataclasses.replace(asked.annotations[0], id="odd", text="is <ground> an <image> or <coord> ?")
    long = dataclasses.replace(odd, id="long", text="why? " * 9000)
    annotations = (odd, *asked.annotations, long)
    scene = asked.scene.replace(annotations=annotations)
    predictor = ModelPredictor(trained, config)
    passes = predictor.passes(scene, annotations, predictor.prepare(scene))
    found = {a.id: outcome for each in passes for a, outcome in zip(each.annotations, each.run(), strict=True)}
    assert len(found) == len(annotations)
    failed = [outcome for outcome in found.values() if isinstance(outcome, Failure)]
    assert [outcome.annotation.id for outcome in failed] == ["long"]
    assert "too long" in failed[0].reason
