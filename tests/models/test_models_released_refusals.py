"""Official checkpoints that must not be converted as if they were whole, and what travels with a model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from official import aligned_parts, ground_heads, official_folder, released_backbone, ross3d_parts
from safetensors.torch import load_file, save_file

from stereopsis.errors import CheckpointError
from stereopsis.models.released import convert_from_released, convert_to_released
from stereopsis.models.storage import load_model, save_model
from stereopsis.training.run_folder import TINY_BASE

TOWER = "model.vision_tower.vision_tower.vision_model"


def whole() -> dict[str, torch.Tensor]:
    return released_backbone() | ground_heads()


def without(*names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in whole().items() if not name.startswith(names)}


def changed(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    return whole() | {name: tensor}


def refused(tmp_path: Path, tensors: dict[str, torch.Tensor], match: str, **config: object) -> None:
    source = official_folder(tmp_path / "official", tensors, **config)
    with pytest.raises(CheckpointError, match=match):
        convert_from_released(source, tmp_path / "ours")
    assert not (tmp_path / "ours" / "config.json").exists()
    assert not list((tmp_path / "ours").glob("*.safetensors")) if (tmp_path / "ours").exists() else True


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mm_newline_position", "one_token"),
        ("mm_newline_position", "frame"),
        ("mm_newline_position", "no_token"),
        ("mm_patch_merge_type", "flat"),
        ("mm_spatial_pool_mode", "average"),
        ("mm_spatial_pool_mode", "max"),
        ("mm_spatial_pool_stride", 4),
        ("mm_vision_select_layer", -1),
        ("mm_vision_select_layer", -3),
        ("mm_vision_select_feature", "cls_patch"),
        ("mm_projector_type", "linear"),
        ("mm_resampler_type", "perceiver"),
        ("add_faster_video", True),
        ("s2", True),
        ("mm_use_im_start_end", True),
        ("use_sliding_window", True),
        ("hidden_act", "gelu"),
        ("world_position_embedding_type", "sample9-discrete-sin3d"),
        ("world_position_embedding_type", "avg-discrete-mlp"),
        ("world_position_embedding_type", "avg-discrete-sin3d-mrope"),
        ("world_position_embedding_type", "avg-sin3d"),
        ("object_feature_type", "patch27-pe"),
        ("ground_head_type", "score"),
        ("ground_head_temperature", 0.1),
        ("voxel_size", 0.2),
        ("min_xyz_range", [-10, -10, -5]),
        ("max_xyz_range", 15),
    ],
)
def test_another_forward_pass_is_refused(tmp_path, key, value):
    refused(tmp_path, whole(), rf"another one: {key} .*\(released: ", **{key: value})


EMPTY = torch.zeros(0)
SHAPED = {
    "an empty table": changed("model.embed_tokens.weight", EMPTY),
    "an empty layer": changed("model.layers.0.mlp.up_proj.weight", EMPTY),
    "an empty tower": changed(f"{TOWER}.embeddings.patch_embedding.weight", EMPTY),
    "an empty grounding head": changed("ground_head_obj.0.weight", EMPTY),
}


@pytest.mark.parametrize("what", SHAPED)
def test_weights_that_zero_3_left_empty_are_refused(tmp_path, what):
    refused(tmp_path, SHAPED[what], "ZeRO-3.*zero_to_fp32.py")


@pytest.mark.parametrize(
    ("tensors", "match", "config"),
    [
        (without("lm_head"), "1 weights are missing.*lm_head.*not tied", {"tie_word_embeddings": False}),
        (without("lm_head"), "1 weights are missing.*lm_head.*absent", {}),
        (whole(), "ties the output layer", {"tie_word_embeddings": True}),
        (
            changed("model.norm.weight", torch.ones(47)),
            r"shape .*model.norm.weight \[47\], expected \[48\]",
            {},
        ),
        (changed("lm_head.weight", torch.ones(3, 48)), r"lm_head.weight \[3, 48\]", {}),
        (changed("model.norm.weight", torch.full((48,), torch.nan)), "'model.norm.weight' holds NaN", {}),
        (without("ground_head_query.3"), "grounding head is not whole: 2 of its 13", {}),
        (released_backbone(), "grounding head is not whole: 13 of its 13", {"ground_head_type": "infonce"}),
        (whole(), "vocab_size is 999", {"vocab_size": 999}),
        (without(f"{TOWER}.encoder.layers.0"), "lacks the vision tower's weight|has 1 layers", {}),
        (without("model.image_newline"), "model.image_newline", {}),
    ],
)
def test_weights_that_lack_or_do_not_fit_are_refused(tmp_path, tensors, match, config):
    refused(tmp_path, tensors, match, **config)


def test_heads_that_are_not_whole_are_refused(tmp_path):
    parts = ross3d_parts()
    lost = next(name for name in parts if name.endswith("mlp.fc2.weight"))
    refused(tmp_path, whole() | {k: v for k, v in parts.items() if k != lost}, "mlp.fc2.weight")
    shutil.rmtree(tmp_path / "official")
    shutil.rmtree(tmp_path / "official-siglip")
    refused(tmp_path, whole() | {k: v for k, v in aligned_parts().items() if k != "model.proj_3d.2.bias"}, "proj_3d")
    shutil.rmtree(tmp_path / "official")
    shutil.rmtree(tmp_path / "official-siglip")
    refused(tmp_path, whole() | ross3d_parts() | {"model.mask_token": torch.ones(5)}, r"mask_token has shape \[5\]")


def test_a_tower_with_lost_layers_is_refused(tmp_path):
    source = official_folder(tmp_path / "official", whole())
    tower = tmp_path / "official-siglip" / "config.json"
    facts = json.loads(tower.read_text())
    layers = len({n.split(".layers.")[1].split(".")[0] for n in whole() if n.startswith(f"{TOWER}.encoder.layers")})
    facts["vision_config"]["num_hidden_layers"] = layers + 3
    tower.write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match=f"has {layers} layers in this checkpoint, expected {layers + 2}"):
        convert_from_released(source, tmp_path / "ours")


def test_a_tied_output_layer_that_is_the_table_is_left_out(tmp_path):
    tensors = released_backbone()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    source = official_folder(tmp_path / "official", tensors, tie_word_embeddings=True)
    told = convert_from_released(source, tmp_path / "ours")
    assert told.dropped == ("lm_head.weight",)
    backbone = load_model(tmp_path / "ours").backbone
    assert backbone.lm_head.weight.data_ptr() == backbone.get_input_embeddings().weight.data_ptr()


def test_tables_that_older_versions_saved_are_known(tmp_path):
    old = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6),
        "model.rotary_emb.inv_freq": torch.ones(6),
        f"{TOWER}.embeddings.position_ids": torch.arange(9)[None],
    }
    told = convert_from_released(official_folder(tmp_path / "official", whole() | old), tmp_path / "ours")
    assert set(told.dropped) == set(old)


def test_settings_that_config_leaves_open_are_told(tmp_path):
    told = convert_from_released(official_folder(tmp_path / "a", whole()), tmp_path / "ours")
    assert any("'mm_newline_position'" in note and "grid" in note for note in told.notes)
    full = {"mm_newline_position": "grid", "mm_patch_merge_type": "spatial_unpad", "mm_spatial_pool_mode": "bilinear"}
    told = convert_from_released(official_folder(tmp_path / "b", whole(), **full), tmp_path / "more")
    assert told.notes == ()


@pytest.mark.parametrize(
    ("prefix", "match"),
    [("module.", "DataParallel"), ("base_model.model.", "PEFT"), ("_orig_mod.", "torch.compile")],
)
def test_names_that_a_wrapper_left_are_explained(tmp_path, prefix, match):
    refused(tmp_path, {prefix + name: tensor for name, tensor in whole().items()}, match)


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"zero_to_fp32.py": "", "latest": "global_step9"}, "zero_to_fp32.py"),
        ({"mp_rank_00_model_states.pt": "x"}, "DeepSpeed"),
        ({"model.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"}, "git lfs pull"),
        ({"pytorch_model.bin": "version https://git-lfs.github.com/spec/v1\n"}, "git lfs pull"),
        ({"model.safetensors.index.json": "version https://git-lfs.github.com/spec/v1\n"}, "git lfs pull"),
        ({"config.json": "version https://git-lfs.github.com/spec/v1\n"}, "git lfs pull"),
        ({"model.safetensors": "<!DOCTYPE html><html>please log in</html>"}, "web page"),
        ({"model.safetensors": ""}, "empty"),
        ({"model.safetensors.incomplete": "x"}, "not finished"),
        ({"model-q4.gguf": "GGUF"}, "llama.cpp"),
        ({"__0_0.distcp": "x"}, "FSDP"),
    ],
)
def test_what_people_have_instead_of_weights_is_named(tmp_path, files, match):
    source = official_folder(tmp_path / "official", {"a": torch.ones(1)})
    (source / "model.safetensors").unlink()
    for name, text in files.items():
        (source / name).write_text(text)
    with pytest.raises(CheckpointError, match=match):
        convert_from_released(source, tmp_path / "ours")


def test_parts_under_a_key_are_pointed_to(tmp_path):
    source = official_folder(tmp_path / "official", {"a": torch.ones(1)}, kind="bin")
    torch.save({"state_dict": whole(), "step": torch.tensor(3)}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="under 'state_dict'"):
        convert_from_released(source, tmp_path / "ours")


def test_opening_an_official_folder_says_to_convert_it(tmp_path):
    source = official_folder(tmp_path / "official", whole())
    with pytest.raises(CheckpointError, match="stereopsis convert"):
        load_model(source)


def test_the_official_settings_travel_with_what_is_trained(tmp_path):
    """Opened, saved again (as training does) and written back: the official code still builds heads and tower."""
    given = {"ground_head_type": "infonce", "object_feature_type": "patch14-pe", "mm_newline_position": "grid"}
    given |= {"world_position_embedding_type": "avg-discrete-sin3d", "own_key": [1, 2]}
    convert_from_released(official_folder(tmp_path / "official", whole(), **given), tmp_path / "ours")
    save_model(load_model(tmp_path / "ours"), tmp_path / "trained")
    save_model(load_model(tmp_path / "trained"), tmp_path / "again")
    convert_to_released(tmp_path / "again", tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {key: config[key] for key in given} == given
    assert config["ground_token_ids"]
    convert_from_released(tmp_path / "back", tmp_path / "third")
    ours, third = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "third"))
    assert all(torch.equal(ours[name], third[name]) for name in ours)
    assert load_model(tmp_path / "third").settings == load_model(tmp_path / "ours").settings


def test_a_base_without_heads_gets_what_the_official_code_needs_for_them(tmp_path):
    """LLaVA-Video's config.json knows no grounding head; a model that was trained from it has one."""
    convert_from_released(official_folder(tmp_path / "official", released_backbone()), tmp_path / "ours")
    save_model(load_model(tmp_path / "ours", positions="depth"), tmp_path / "trained")
    told = convert_to_released(tmp_path / "trained", tmp_path / "back")
    assert told.kind == "video_3d_llm"
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (config["ground_head_type"], config["object_feature_type"]) == ("infonce", "patch14-pe")
    assert config["world_position_embedding_type"] == "avg-discrete-sin3d"
    assert config["vocab_size"] == load_file(tmp_path / "back" / "model.safetensors")["lm_head.weight"].shape[0]


def test_a_tower_of_its_own_goes_there_and_back(tmp_path):
    """The shipped base: 96 pixels, 6 heads. The official form has a folder that tells of its tower."""
    told = convert_to_released(TINY_BASE, tmp_path / "released")
    assert any("the only one that the official code reads" in note for note in told.notes)
    convert_from_released(tmp_path / "released", tmp_path / "back")
    first, second = load_model(TINY_BASE), load_model(tmp_path / "back")
    assert second.settings == first.settings
    for name, tensor in first.backbone.state_dict().items():
        if "post_layernorm" not in name:
            torch.testing.assert_close(second.backbone.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"encoding_scale": 0.5}, "encoding_scale 0.5"),
        ({"view_grid": (4, 4)}, r"view_grid \[4, 4\]"),
        ({"object_features": "last_layer"}, "last_layer"),
    ],
)
def test_a_model_that_computes_otherwise_is_not_written_as_released(tmp_path, changes, match):
    save_model(load_model(TINY_BASE, **changes), tmp_path / "other")
    with pytest.raises(CheckpointError, match=match):
        convert_to_released(tmp_path / "other", tmp_path / "released")


# Adapters as LLaVA's training leaves them ------------------------------------------------------------------------

RANK, ALPHA = 2, 6
ADAPTED = ("model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj")


def lora_folder(folder: Path, base: Path, *, named: bool = True, kind: str = "bin", style: str = "") -> Path:
    """config.json, adapter_config.json, adapter_model and non_lora_trainables.bin."""
    folder.mkdir()
    shutil.copy(base / "config.json", folder / "config.json")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    (folder / "adapter_config.json").write_text(
        json.dumps({**settings, "base_model_name_or_path": str(base) if named else "lmms-lab/LLaVA-Video-7B-Qwen2"})
    )
    draw, tensors, pairs = torch.Generator().manual_seed(1), whole(), {}
    for name in ADAPTED:
        out, size = tensors[f"{name}.weight"].shape
        pairs[f"base_model.model.{name}.lora_A{style}.weight"] = torch.randn(RANK, size, generator=draw)
        pairs[f"base_model.model.{name}.lora_B{style}.weight"] = torch.randn(out, RANK, generator=draw)
    if kind == "bin":
        torch.save(pairs, folder / "adapter_model.bin")
    else:
        save_file(pairs, folder / "adapter_model.safetensors")
    others = {"model.mm_projector.0.bias": torch.full((48,), 3.0), **ground_heads()}
    torch.save({f"base_model.model.{k}": v for k, v in others.items()}, folder / "non_lora_trainables.bin")
    return folder


@pytest.mark.parametrize(("kind", "style"), [("bin", ""), ("safetensors", ".default")])
def test_adapters_of_llava_s_training_are_merged(tmp_path, kind, style):
    base = official_folder(tmp_path / "base", released_backbone(), shards=2)
    folder = lora_folder(tmp_path / "lora", base, kind=kind, style=style)
    told = convert_from_released(folder, tmp_path / "ours")
    assert told.kind == "video_3d_llm"
    pairs = load_file(folder / "adapter_model.safetensors") if kind == "safetensors" else None
    pairs = pairs or torch.load(folder / "adapter_model.bin", weights_only=True)
    convert_to_released(tmp_path / "ours", tmp_path / "back")
    found, expected = load_file(tmp_path / "back" / "model.safetensors"), released_backbone()
    for name, tensor in expected.items():
        matrix = name.removesuffix(".weight")
        if matrix in ADAPTED:
            low = [pairs[f"base_model.model.{matrix}.lora_{side}{style}.weight"].double() for side in "AB"]
            tensor = tensor.double() + ALPHA / RANK * low[1] @ low[0]
            torch.testing.assert_close(found[name].double(), tensor, rtol=1e-5, atol=1e-5)
        elif name == "model.mm_projector.0.bias":
            assert torch.equal(found[name], torch.full((48,), 3.0))
        else:
            assert torch.equal(found[name][: len(tensor)], tensor), name
    assert torch.equal(found["ground_head_zero_target"], ground_heads()["ground_head_zero_target"])


def test_adapters_without_their_base_ask_for_it(tmp_path):
    base = official_folder(tmp_path / "base", released_backbone())
    folder = lora_folder(tmp_path / "lora", base, named=False)
    with pytest.raises(CheckpointError, match=r"rank 2\) on 'lmms-lab/LLaVA-Video-7B-Qwen2'.*--base FOLDER"):
        convert_from_released(folder, tmp_path / "ours")
    assert convert_from_released(folder, tmp_path / "ours", base=base).grounding == 13
    with pytest.raises(CheckpointError, match="needs no --base"):
        convert_from_released(base, tmp_path / "more", base=base)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.joinpath("adapter_model.bin").unlink(), "none of adapter_model"),
        (lambda f: torch.save({}, f / "adapter_model.bin"), "0 of 0 adapters"),
        (
            lambda f: torch.save(
                {
                    "base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": torch.ones(2, 48),
                    "base_model.model.model.layers.9.mlp.up_proj.lora_B.weight": torch.ones(64, 2),
                },
                f / "adapter_model.bin",
            ),
            "which the base .* lacks",
        ),
        (
            lambda f: torch.save(
                {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(2, 48)},
                f / "adapter_model.bin",
            ),
            "1 of 1 adapters are not whole",
        ),
        (
            lambda f: torch.save(
                {
                    "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(2, 40),
                    "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": torch.ones(64, 2),
                },
                f / "adapter_model.bin",
            ),
            r"is \[64, 2\] x \[2, 40\]",
        ),
        (
            lambda f: (f / "adapter_config.json").write_text(
                json.dumps({**json.loads((f / "adapter_config.json").read_text()), "use_dora": True})
            ),
            "DoRA",
        ),
    ],
)
def test_adapters_that_cannot_be_merged_are_refused(tmp_path, change, match):
    folder = lora_folder(tmp_path / "lora", official_folder(tmp_path / "base", released_backbone()))
    change(folder)
    with pytest.raises(CheckpointError, match=match):
        convert_from_released(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
