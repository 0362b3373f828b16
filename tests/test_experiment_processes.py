"""Arms in processes of their own: the same results as one after the other; finished ones are kept."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from stereopsis.evaluation.records import read_results
from stereopsis.experiment import Arm, compare
from stereopsis.experiment.arms import FINISHED_FILE, finished_arm
from stereopsis.experiment.jobs import ArmJob


@pytest.fixture(scope="module")
def arms(make_recipe, tiny_base) -> list[Arm]:
    blind = {"base": str(tiny_base), "blind": True}
    settings = {"training__steps": 2, "training__save_every": 1}
    return [
        Arm(name="blind", label="blind", recipe=make_recipe("text", "grounding", model=blind, **settings)),
        Arm(name="full", label="all of it", recipe=make_recipe(**settings), note="everything"),
    ]


@pytest.fixture(scope="module")
def apart(arms, tmp_path_factory) -> tuple[Path, str]:
    """The comparison by two processes, and what was shown of it."""
    folder, out = tmp_path_factory.mktemp("apart"), io.StringIO()
    compare(arms, folder, title="Two arms", pictures=1, processes=2, console=Console(file=out, width=200))
    return folder, out.getvalue()


def test_processes_change_no_answer_and_no_loss(arms, apart, tmp_path):
    folder, _ = apart
    compare(arms, tmp_path, title="Two arms", pictures=1)
    for arm in arms:
        logs = [(f / arm.name / "metrics.jsonl").read_text().splitlines() for f in (folder, tmp_path)]
        for mine, theirs in zip(*(map(json.loads, log) for log in logs), strict=True):
            for key in (key for key in theirs if key.startswith("loss")):
                assert mine[key] == pytest.approx(theirs[key], rel=1e-3), key  # cached answers are half precision
        (records, summary), (others, other) = (read_results(f / arm.name / "evaluation") for f in (folder, tmp_path))
        assert [record["id"] for record in records] == [record["id"] for record in others]
        assert summary["tasks"].keys() == other["tasks"].keys()
    assert (folder / "full" / "pictures" / "pictures.json").is_file()
    first, second = (json.loads((f / "comparison.json").read_text()) for f in (folder, tmp_path))
    assert first["baselines"] == second["baselines"]
    assert first["arms"] == second["arms"]


def test_what_each_process_does_is_shown_with_its_name(apart):
    _, shown = apart
    lines = shown.splitlines()
    for name in ("[packs 1/1]", "[blind]", "[all of it]"):
        assert any(line.startswith(name) for line in lines), name
    assert any(line.startswith("[all of it] Training tiny: 2 steps, done in") for line in lines)
    assert "\r" not in shown


def test_finished_arms_are_kept_and_the_others_made(arms, apart):
    folder, _ = apart
    assert all(finished_arm(folder / arm.name, arm.recipe) for arm in arms)
    weights = [folder / arm.name / "model" / "model.safetensors" for arm in arms]
    made = [path.stat().st_mtime_ns for path in weights]
    (folder / "blind" / FINISHED_FILE).unlink()  # as if it had been interrupted at its very end
    out = io.StringIO()
    compare(arms, folder, title="Two arms", overwrite=False, processes=2, console=Console(file=out, width=200))
    assert "all of it: there already, kept" in out.getvalue()
    assert weights[1].stat().st_mtime_ns == made[1]
    assert weights[0].stat().st_mtime_ns != made[0]
    changed = arms[1].recipe.model_copy(update={"seed": 5})
    assert not finished_arm(folder / "full", changed)


def test_the_blind_arm_takes_the_others_packs(apart):
    folder, _ = apart
    assert len(list((folder / "cache" / "packs").iterdir())) == 1


def test_a_job_goes_through_a_line_of_text_unchanged(arms, tmp_path):
    job = ArmJob(name="all", recipe=arms[1].recipe, arm=arms[1], folder=tmp_path, pictures=3, overwrite=False)
    assert ArmJob.parse(job.job().text) == job
    share = ArmJob(name="packs 1/2", recipe=arms[0].recipe, share=(1, 2))
    assert ArmJob.parse(share.job().text) == share
    assert "\n" not in share.job().text
