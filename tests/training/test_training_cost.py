"""What a recipe will cost: exact parameters, known bases, and every shipped recipe where it says that it fits."""

import json
from pathlib import Path

import pytest
from families import BUILDERS, family_tokenizer, tiny_model

from stereopsis.cli.info import describe
from stereopsis.errors import CheckpointError, RecipeError
from stereopsis.models.storage import save_model
from stereopsis.training.build import build_model, build_objectives, build_teachers, count_parameters
from stereopsis.training.cost import GPUS, Assumptions, facts, predict
from stereopsis.training.cost.gpus import gpu_named
from stereopsis.training.cost.meta_model import KNOWN_BASES, feature_channels, latent_shape, planned_model
from stereopsis.training.recipe import ENGINE_FOLDER, load_recipe
from stereopsis.training.recipe_packs import build_packs

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
RECIPES = sorted(path for path in FOLDER.rglob("*.yaml") if path.parent.name != ENGINE_FOLDER)
ONE, EIGHT = Assumptions(), Assumptions(processes=8, sharding="zero3")
MEANT_FOR = {
    "ross3d+3drs-7b-lora-48gb": [("A6000-48", 256, ONE), ("L40S", 256, ONE)],
    "ross3d+3drs-7b-lora-24gb": [("RTX4090", 256, ONE), ("RTX3090", 256, ONE)],
    "video3dllm-7b": [("A100-80", 16, EIGHT)],
    "3drs-7b": [("A100-80", 16, EIGHT)],
    **{
        name: [("A100-80", 256, EIGHT)]
        for name in (
            "ross3d-7b",
            "ross3d+3drs-7b",
            "qwen2.5-vl-3b",
            "qwen2.5-vl-7b",
            "qwen3-vl-8b",
            "internvl3-8b",
        )
    },
}
"""Where recipes must fit, with the batch that they were published with."""
PUBLISHED = {
    "LLaVA-Video-7B-Qwen2": 8_030_348_832,
    "Qwen2-VL-7B-Instruct": 8_291_375_616,
    "Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen3-VL-8B-Instruct": 8_767_123_696,
    "InternVL3-8B-hf": 7_944_373_760,
    "gemma-3-4b-it": 4_300_079_472,
}
"""Parameters of the published files (LLaVA-Video: of LLaVA-OneVision 7B, the same architecture)."""


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_known_bases_have_their_published_number_of_parameters(make_recipe, name):
    recipe = make_recipe("text", model={"base": f"models/{name}"})
    assert predict(recipe).parameters.backbone == PUBLISHED[name]
    assert set(json.loads(KNOWN_BASES.read_text())) >= set(PUBLISHED)


@pytest.mark.parametrize("family", sorted(BUILDERS))
def test_parameters_are_those_of_the_model_that_would_be_trained(make_recipe, family, tmp_path):
    model = tiny_model(family, family_tokenizer())
    model.backbone.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    recipe = make_recipe(model={"base": str(tmp_path), "view_grid": (3, 3)})
    planned, opened = planned_model(recipe), build_model(recipe)
    assert next(planned.parameters()).device.type == "meta"
    planned.objectives = None
    assert count_parameters(planned) == count_parameters(opened)
    assert {n: p.shape for n, p in planned.named_parameters()} == {n: p.shape for n, p in opened.named_parameters()}


def test_heads_and_targets_are_those_of_the_run(make_recipe):
    recipe = make_recipe()
    model = build_model(recipe)
    packs = build_packs(recipe, model, build_teachers(recipe), recipe.data.sources)
    batch = model.collator()([packs[0]])
    model.objectives = build_objectives(recipe, model.adapter.dim, batch.targets)
    prediction = predict(recipe)
    assert prediction.parameters == count_parameters(model)
    assert prediction.scene.prefix == int((batch.segments == 0).sum())
    assert prediction.scene.views == 4


def test_adapters_are_planned_as_they_are_trained(make_recipe):
    pytest.importorskip("peft")
    recipe = make_recipe("text", model__lora={"rank": 3, "targets": ["q_proj"]})
    planned = predict(recipe).parameters
    opened = build_model(recipe)
    assert planned.trained == sum(p.numel() for p in opened.parameters() if p.requires_grad)
    assert planned.backbone == sum(p.numel() for p in opened.backbone.parameters())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_predicted_without_its_base_and_fits_where_it_is_meant_for(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if "lora" in path.stem:
        pytest.importorskip("peft")
    recipe = load_recipe(path)
    model = planned_model(recipe)
    told = facts(predict(recipe, model=model), "H200")
    assert "GiB predicted" in told["memory per GPU"]
    assert float(told["TFLOP per step and GPU"].split()[0]) > 0
    meant = MEANT_FOR.get(path.stem, [])
    own = path.stem == "capture-anchored"  # one's own capture has no published schedule
    assert bool(meant) == (recipe.model.base != "tiny" and not own)
    for gpu, batch, assumptions in meant:
        prediction = predict(recipe, assumptions, model=model)
        assert prediction.gpus[gpu].fits, gpu
        assert prediction.conversations_per_step == batch
        assert recipe.training.steps == pytest.approx(223_128 / batch, abs=1)  # one epoch of the published samples


def test_a_recipe_is_described_with_its_cost(make_recipe, tmp_path):
    told = describe("baseline-tiny", [], gpu="h100")
    assert told["recipe"] == "baseline-tiny"
    assert told["visual tokens per scene"] == 8 * int(told["tokens per view"].split()[0])
    assert [key for key in told if key.startswith("on ")] == ["on H100"]
    assert told["on H100"].startswith("fits in 79 GiB: yes, ")


def test_full_tuning_of_seven_billion_parameters_fits_no_single_card():
    prediction = predict(load_recipe("ross3d-7b"))
    assert not any(on.fits for name, on in prediction.gpus.items() if name != "H200")
    assert prediction.memory.weights + prediction.memory.optimizer > 80e9


def test_time_is_operations_over_peak_and_utilisation(make_recipe):
    recipe = make_recipe("text", "alignment", training__precision="bf16", training__steps=100)
    half, whole = (predict(recipe, Assumptions(utilisation=u)) for u in (0.5, 1.0))
    gpu = GPUS["A100-80"]
    moved = (3 * half.memory.gradients + 2 * half.memory.optimizer) / (gpu.bandwidth * 1e9)
    seconds = half.flops.total.executed / (gpu.bf16 * 1e12 * 0.5) + moved
    assert half.gpus["A100-80"].step_seconds == pytest.approx(seconds)
    assert half.gpus["A100-80"].run_hours == pytest.approx(100 * seconds / 3600)
    assert half.gpus["A100-80"].step_seconds - moved == pytest.approx(2 * (whole.gpus["A100-80"].step_seconds - moved))


def test_a_dense_mask_costs_operations_and_memory(make_recipe):
    packed, dense = (predict(make_recipe("text", model__attention=how)) for how in ("auto", "sdpa"))
    assert dense.flops.parts["attention"].forward > packed.flops.parts["attention"].forward
    assert dense.memory.activations > packed.memory.activations


def test_accumulation_multiplies_operations_and_leaves_memory(make_recipe):
    one, four = (predict(make_recipe("text", training__accumulation=n)) for n in (1, 4))
    assert four.flops.total.model == pytest.approx(4 * one.flops.total.model)
    assert four.memory == one.memory


def test_what_is_not_at_hand_is_told_and_what_is_unknown_refused(make_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = make_recipe(
        "text",
        "alignment",
        "vanilla",
        model={"base": "models/Qwen2.5-VL-3B-Instruct"},
        teachers={"latent": "kl:x", "features": "hf:y"},
    )
    told = facts(predict(recipe))["not at hand"]
    assert "sizes of 'Qwen2.5-VL-3B-Instruct' as published" in told
    assert "latent teacher 'kl:x'" in told
    assert "feature teacher 'hf:y'" in told
    with pytest.raises(CheckpointError, match=r"no base whose sizes are known \(did you mean 'Qwen2.5-VL-3B-Instruct'"):
        predict(make_recipe("text", model={"base": "models/Qwen2.5-VL-3B-Instrct"}))


def test_a_base_of_an_unknown_family_is_refused_by_name(make_recipe, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl2"}))
    with pytest.raises(CheckpointError, match=r"no adapter for the model family 'internvl2' \(did you mean 'internvl'"):
        predict(make_recipe("text", model={"base": str(tmp_path)}))


def test_teachers_shapes_are_their_own(make_recipe):
    assert latent_shape("flux:nowhere") == (64, 8)
    assert latent_shape("pixels") == (768, 8)  # 3 x 8 x 8 pixels, four patches a cell
    assert feature_channels("vggt:vggt:nowhere") == 2048
    recipe = make_recipe()
    teachers = build_teachers(recipe)
    assert latent_shape(recipe.teachers.latent)[0] == teachers.latent.channels
    assert feature_channels(recipe.teachers.features) == teachers.features.channels


def test_a_folder_of_ours_is_planned_with_its_own_settings(make_recipe, tmp_path):
    model = tiny_model("internvl", family_tokenizer(), fit="squash")
    save_model(model, tmp_path)
    planned = planned_model(make_recipe("text", model={"base": str(tmp_path), "positions": "none"}))
    assert (planned.settings.fit, planned.settings.positions) == ("squash", "none")


def test_wrong_questions_are_refused():
    with pytest.raises(RecipeError, match=r"no figures of a GPU 'H10' \(did you mean 'H100'"):
        gpu_named("H10")
    assert gpu_named("rtx4090").memory < 24
    with pytest.raises(RecipeError, match="utilisation must lie in"):
        Assumptions(utilisation=40.0)
    with pytest.raises(RecipeError, match="processes must be at least 1"):
        Assumptions(processes=0)


def test_plain_data_is_complete(make_recipe):
    prediction = predict(make_recipe("text", "cross_view"))
    plain = json.loads(json.dumps(prediction.to_json()))
    assert plain["flops"]["model"] == prediction.flops.total.model
    assert plain["memory"]["total"] == prediction.memory.total
    assert plain["flops"]["full_precision"] == ["cross_view"]
    assert set(plain["gpus"]) == set(GPUS)
    assert plain["scene"]["tokens"] == prediction.scene.tokens
