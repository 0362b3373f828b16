"""The card of a trained model says what it is, what it was made of, and what it can do."""

import json
import shutil

import pytest
import yaml

from stereopsis.training.model_card import write_card
from stereopsis.training.recipe import load_recipe, parse_recipe
from stereopsis.weights.manifest import check_manifest


@pytest.fixture
def card(finished_run) -> str:
    return (finished_run.folder / "model" / "README.md").read_text()


def test_training_leaves_a_card_that_the_hub_can_read(card, finished_run):
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "stereopsis"
    assert "cross_view" in yaml.safe_load(head)["tags"]
    recipe = load_recipe(finished_run.folder / "recipe.yaml")
    assert f"{recipe.training.steps} steps, seed {recipe.seed}" in text
    _, _, rest = text.partition("```yaml\n")
    assert parse_recipe(yaml.safe_load(rest.partition("```")[0])) == recipe
    assert check_manifest(finished_run.folder / "model", "copy it again") is not None  # the card is no part of it


def test_an_evaluation_brings_its_figures_into_the_card(finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    evaluation = run / "evaluation"
    shutil.rmtree(evaluation, ignore_errors=True)
    assert "## Figures" not in write_card(run).read_text()
    evaluation.mkdir()
    value = {"mean": 41.53, "low": 38.2, "high": 44.71}
    tasks = {"sqa3d": {"count": 621, "overall": {"em": value, "em_r": value}}}
    (evaluation / "summary.json").write_text(json.dumps({"settings": {"scenes": 50}, "tasks": tasks}))
    assert "| SQA3D | 621 | em | 41.5 (38.2 to 44.7) |" in write_card(run).read_text()


def test_the_command_writes_the_figures(finished_run, tiny_rooms, tmp_path, monkeypatch, capsys):
    import sys

    from stereopsis import cli

    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run, ignore=shutil.ignore_patterns("evaluation"))
    arguments = ["evaluate", str(run), "--limit", "1", "--scenes", str(tiny_rooms), "--benchmarks", "scanqa"]
    monkeypatch.setattr(sys, "argv", ["stereopsis", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code, capsys.readouterr().err
    assert "| ScanQA | " in (run / "model" / "README.md").read_text()
