"""Official checkpoints: names, configuration, conversion both ways, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from families import family_tokenizer, tiny_backbone
from official import aligned_parts, denoiser, ground_heads, official_folder, released_backbone, ross3d_parts
from safetensors.torch import load_file

from stereopsis.errors import CheckpointError, RunFolderError
from stereopsis.models.released import convert_from_released, convert_to_released, kind_of, our_name, released_name
from stereopsis.models.released.config import INSTRUCTION
from stereopsis.models.storage import load_model


@pytest.mark.parametrize(("kind", "shards"), [("safetensors", 1), ("safetensors", 3), ("bin", 1), ("bin", 2)])
def test_a_converted_model_is_the_original(tmp_path, kind, shards):
    """Weight for weight, and hidden state for hidden state; single files and shards, both formats."""
    source = official_folder(tmp_path / "official", released_backbone() | ground_heads(), kind=kind, shards=shards)
    told = convert_from_released(source, tmp_path / "ours", shard_bytes=60_000)
    assert told.kind == "video_3d_llm"
    assert told.grounding == len(ground_heads())
    assert told.dropped == ()
    model = load_model(tmp_path / "ours")
    expected = tiny_backbone("llava_onevision", family_tokenizer()).state_dict()
    found = model.backbone.state_dict()
    assert found.keys() == expected.keys()
    rows = expected["lm_head.weight"].shape[0]
    for name, value in expected.items():
        assert torch.equal(
            found[name][:rows] if name.endswith(("embed_tokens.weight", "lm_head.weight")) else found[name], value
        )
    assert torch.equal(model.grounding.zero_target, ground_heads()["ground_head_zero_target"])
    assert torch.equal(model.grounding.query[3].bias, ground_heads()["ground_head_query.3.bias"])
    assert model.settings.view_grid == (3, 3)
    assert (model.settings.positions, model.settings.fit, model.settings.instruction) == ("depth", "crop", INSTRUCTION)


def test_ross3d_keeps_its_heads_and_drops_its_autoencoder(tmp_path):
    tensors = released_backbone() | ground_heads() | ross3d_parts()
    told = convert_from_released(official_folder(tmp_path / "official", tensors), tmp_path / "ours")
    assert told.kind == "ross3d"
    assert told.dropped == ("model.mm_pixel_decoder.encoder.conv_in.weight",)
    heads = load_file(tmp_path / "ours" / "training_heads.safetensors")
    assert torch.equal(heads["members.cross_view.mask_token"], tensors["model.mask_token"])
    again = denoiser()
    again.load_state_dict({k.removeprefix("denoiser."): v for k, v in heads.items() if k.startswith("denoiser.")})


def test_3drs_keeps_its_alignment_head_and_squashes(tmp_path):
    tensors = released_backbone() | ground_heads() | aligned_parts()
    told = convert_from_released(official_folder(tmp_path / "official", tensors), tmp_path / "ours")
    assert told.kind == "3drs"
    assert sorted(told.dropped) == ["geometric_linear.bias", "model.corres_linear.weight"]
    settings = load_model(tmp_path / "ours").settings
    assert (settings.fit, settings.object_features) == ("squash", "mean")
    heads = load_file(tmp_path / "ours" / "training_heads.safetensors")
    assert torch.equal(heads["members.alignment.head.2.weight"], tensors["model.proj_3d.2.weight"])


@pytest.mark.parametrize("parts", [{}, ross3d_parts()], ids=["video_3d_llm", "ross3d"])
def test_there_and_back_gives_every_used_weight_again(tmp_path, parts):
    tensors = released_backbone() | ground_heads() | parts
    told = convert_from_released(official_folder(tmp_path / "official", tensors), tmp_path / "ours")
    convert_to_released(tmp_path / "ours", tmp_path / "back", shard_bytes=50_000)
    shards = sorted((tmp_path / "back").glob("model-*.safetensors"))
    assert len(shards) > 1
    found = {k: v for shard in shards for k, v in load_file(shard).items()}
    assert found.keys() == tensors.keys() - set(told.dropped)
    for name, value in found.items():
        assert torch.equal(value[: len(tensors[name])] if value.ndim else value, tensors[name])
    assert json.loads((tmp_path / "back" / "config.json").read_text())["mm_spatial_pool_stride"] == 2


def test_new_tokens_get_rows_where_the_table_is_full(tmp_path):
    """The official table may end before <image>, <coord> and <ground>: their rows are the mean of the others."""
    tensors = released_backbone()
    names = ("model.embed_tokens.weight", "lm_head.weight")
    tensors |= {name: tensors[name][:300].clone() for name in names}
    told = convert_from_released(official_folder(tmp_path / "official", tensors), tmp_path / "ours")
    assert told.kind == "llava_video"
    assert len(told.added) == 2
    model = load_model(tmp_path / "ours")
    table = model.backbone.get_input_embeddings().weight
    assert len(table) == len(model.tokenizer)
    torch.testing.assert_close(table[-1], tensors["model.embed_tokens.weight"].mean(0))
    assert model.settings.positions == "none"


def test_a_tower_without_its_unused_norm_gets_the_identity(tmp_path):
    tensors = {k: v for k, v in released_backbone().items() if "post_layernorm" not in k}
    told = convert_from_released(official_folder(tmp_path / "official", tensors), tmp_path / "ours")
    assert set(told.added) == {"vision_tower.post_layernorm.weight", "vision_tower.post_layernorm.bias"}
    norm = load_model(tmp_path / "ours").adapter.vision_tower.post_layernorm
    assert torch.equal(norm.weight, torch.ones(32))


def _without(tensors, name):
    return {k: v for k, v in tensors.items() if k != name}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t | {"model.something.new": torch.ones(1)}, "in none of the layouts"),
        (lambda t: _without(t, "model.layers.1.mlp.up_proj.weight"), r"1 weights are missing .*layers.1.mlp.up_proj"),
        (
            lambda t: _without(t, "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"),
            "lacks",
        ),
    ],
)
def test_an_incomplete_or_foreign_checkpoint_is_refused_and_leaves_nothing(tmp_path, change, match):
    source = official_folder(tmp_path / "official", change(released_backbone()))
    with pytest.raises(CheckpointError, match=match):
        convert_from_released(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists() or not any((tmp_path / "ours").iterdir())


def test_programs_in_pickles_are_not_run(tmp_path):
    source = official_folder(tmp_path / "official", released_backbone(), kind="bin")
    mark = tmp_path / "ran"

    class Program:
        def __reduce__(self):
            return (Path.touch, (mark,))

    torch.save({"model.norm.weight": Program()}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="opening them runs code"):
        convert_from_released(source, tmp_path / "ours")
    assert not mark.exists()


def test_a_damaged_index_and_a_full_target_are_refused(tmp_path):
    source = official_folder(tmp_path / "official", released_backbone(), shards=2)
    index = source / "model.safetensors.index.json"
    places = json.loads(index.read_text())
    places["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(places))
    with pytest.raises(CheckpointError, match="outside its folder"):
        convert_from_released(source, tmp_path / "ours")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    good = official_folder(tmp_path / "good", released_backbone())
    with pytest.raises(RunFolderError, match="not empty"):
        convert_from_released(good, tmp_path / "full")


def test_an_unknown_tower_asks_for_its_folder(tmp_path):
    source = official_folder(tmp_path / "official", released_backbone(), mm_vision_tower="somebody/else")
    with pytest.raises(CheckpointError, match="give vision_tower the folder"):
        convert_from_released(source, tmp_path / "ours")
    told = convert_from_released(source, tmp_path / "ours", vision_tower=tmp_path / "official-siglip")
    assert told.backbone > 0


def test_names_go_both_ways():
    for name in [*released_backbone(), *ground_heads(), *ross3d_parts(), *aligned_parts()]:
        place = our_name(name)
        if place.part != "dropped":
            assert released_name(place.part, place.name) == name
    assert kind_of(["model.embed_tokens.weight"]) == "llava_video"
