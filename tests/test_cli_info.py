"""What the command line tells about recipes, and adapters that become a plain model."""

import dataclasses
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from typer.testing import CliRunner

from stereopsis.cli import app
from stereopsis.cli.info import describe
from stereopsis.errors import RecipeError, StereopsisError
from stereopsis.models.storage import load_model, save_model
from stereopsis.scenes.prepare.inspect import rounded, verdict
from stereopsis.scenes.stored import read_scene
from stereopsis.training.build import build_model
from stereopsis.training.cost import Assumptions
from stereopsis.training.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")


def said(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "400"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_recipe_is_told_with_its_cost_before_anything_is_downloaded():
    told = said("info", "ross3d-7b", "--processes", 8, "--sharding", "zero3", "--gpu", "a100-80")
    assert "8030348832" in told
    assert "256 on 8 GPU(s)" in told
    assert "on A100-80" in told
    assert "on H100" not in told
    assert "fits in 79 GiB: yes" in told
    assert "its folder is not here" in told


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_no_shipped_recipe_makes_the_libraries_talk(capfd, small):
    """One recipe for each base and teachers that shipped ones name: what is loaded depends on little else."""
    found = {}
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        if path.parent.name != "accelerate" and small == (path.parent.name == "ablations" or "tiny" in path.name):
            recipe = load_recipe(str(path))
            found.setdefault((recipe.model.base, recipe.teachers.features, recipe.teachers.latent), path)
    assert len(found) >= 2
    capfd.readouterr()
    for path in found.values():
        describe(str(path), [])
        assert capfd.readouterr().err == "", path.name


def test_plain_data_for_other_programs(recipe_content, tmp_path, finished_run):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(json.dumps(recipe_content("text", "alignment")))
    one = json.loads(said("info", recipe, "--json"))
    two = json.loads(said("info", recipe, "--json", "--utilisation", 0.8, "-s", "training.scenes=4"))
    assert one["gpus"]["H100"]["fits"]
    assert two["flops"]["model"] == pytest.approx(2 * one["flops"]["model"], rel=0.01)
    assert two["assumptions"]["utilisation"] == 0.8
    assert json.loads(said("info", finished_run.folder, "--json"))["recipe"] == "tiny"


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        (("--sharding", "zero1"), StereopsisError, "--sharding must be one of none, zero2, zero3, found 'zero1'"),
        (("--gpu", "H1000"), RecipeError, "no figures of a GPU 'H1000'"),
        (("--utilisation", 0), RecipeError, r"utilisation must lie in \(0, 1\]"),
    ],
)
def test_wrong_questions_are_refused(option, error, message):
    with pytest.raises(error, match=message):
        said("info", "baseline-tiny", *option)


@needs_peft
def test_adapters_become_a_plain_model(make_recipe, tmp_path, tiny_base):
    model = build_model(make_recipe("text", model__lora={"rank": 2, "targets": ["q_proj"]}))
    save_model(model, tmp_path / "run" / "model")
    said("merge", tmp_path / "run", tmp_path / "whole")
    assert {"config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "whole").iterdir()}
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    # adapters start as nothing: the merged model is the base
    whole, base = (load_model(folder).state_dict() for folder in (tmp_path / "whole", tiny_base))
    assert all((whole[name] - base[name]).abs().max() < 1e-6 for name in base)
    with pytest.raises(StereopsisError, match="is not empty"):
        said("merge", tmp_path / "run", tmp_path / "whole")
    with pytest.raises(StereopsisError, match="holds no adapters"):
        said("merge", tiny_base, tmp_path / "other")


def test_the_documentations_table_is_made_of_predictions(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "scripts"))
    import predict_hardware

    assert {name for name, _ in predict_hardware.RECIPES} >= {"ross3d-7b", "3drs-7b", "ross3d+3drs-7b-lora-24gb"}
    lines = predict_hardware.table((("ross3d-7b", Assumptions()), ("ross3d-7b", predict_hardware.EIGHT))).splitlines()
    alone, shared = lines[2:]
    assert "| no | no | no | no | no | no | no |" in alone
    assert "8, zero3" in shared
    assert shared.count("| no ") == 2  # two of the cards have 24 GB
    sys.modules.pop("predict_hardware")


def test_every_kind_of_thing_can_be_described(finished_run, tiny_base):
    assert {"versions", "machine"} <= describe(None, []).keys()
    run = finished_run.folder
    told = describe(str(run), [])
    assert (told["run"], told["recipe"]) == (str(run), "tiny")
    assert "cross_view" in told["objectives"].split(", ")
    assert told["training_heads"] == 0  # left behind at inference
    with safe_open(run / "model" / "spatial.safetensors", framework="pt") as file:
        stored = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118
    assert told["grounding"] == stored
    recipe = describe("baseline-tiny", [f"model.base={tiny_base}", "data.views=5"])
    assert recipe["tokens per view"] == "12 (3 x 3 cells)"  # a newline token ends each row
    assert recipe["visual tokens per scene"] == 60
    with pytest.raises(StereopsisError, match="no recipe 'baseline-tinny'"):
        describe("baseline-tinny", [])


def test_a_scene_gets_a_verdict_and_rounded_figures(tiny_rooms, tmp_path):
    folder = tiny_rooms / "room-00000000"
    told = said("info", folder)
    assert "Usable: 4 views with poses, " in told
    assert not re.search(r"\d\.\d{4}", told)  # nobody reads 5.005328670365049 metres
    plain = json.loads(said("info", folder, "--json"))
    assert (plain["scene"], plain["frames"], plain["bird's-eye view"]) == ("room-00000000", 4, True)
    assert plain["usable"]
    assert any(side != round(side, 4) for side in plain["room_size"])  # programs get everything


def test_what_is_wrong_with_a_scene_is_said(tiny_rooms):
    scene = read_scene(tiny_rooms / "room-00000000")
    assert verdict(scene).notes == ()
    blind = scene.replace(frames=tuple(dataclasses.replace(frame, load_depth=None) for frame in scene.frames))
    assert not verdict(blind).usable
    assert "4 of 4 views have no depth" in verdict(blind).notes[0]
    assert not verdict(scene.replace(frames=scene.frames[:1])).usable
    bare = scene.replace(objects=(), proposals=(), annotations=(), birdseye=None)
    assert "vision only" in verdict(bare).words
    assert [note.split(":")[0] for note in verdict(bare).notes] == [
        "not seen from above, and not checked yet",
        "neither objects nor candidate boxes",
    ]
    unsure = {"alignment": {"confidence": 0.31234}, "skipped": {"a": "torn"}}
    notes = verdict(scene.replace(provenance=unsure, proposals=())).notes
    assert notes[0] == "1 bad frame left out"
    assert "confidence 0.31)" in notes[1]
    assert "the objects' own boxes" in notes[2]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, 0.123),
        (12345.6, 12300.0),
        ([1, 2.00001], [1, 2.0]),
        ({"a": (0.98765, "x", None)}, {"a": [0.988, "x", None]}),
    ],
)
def test_figures_are_rounded_for_people(value, shown):
    assert rounded(value) == shown
