"""What is saved is what is opened, training heads stay behind, and foreign folders are refused in words."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

from stereopsis.data.batch import Batch
from stereopsis.errors import CheckpointError, RecipeError
from stereopsis.models import storage
from stereopsis.models.grounding import GroundingHead
from stereopsis.models.inference import EnteredScene
from stereopsis.models.storage import load_model, load_tensors, save_model
from stereopsis.models.tiny import TinyConfig, build_tiny_backbone, build_tokenizer

DUE = ("text", "grounding", "cross_view")


@pytest.fixture(scope="module")
def saved(make_model, tmp_path_factory):
    """A model with objectives and its folder."""
    model = make_model(*DUE, encoding_scale=0.5, positions="noisy", instruction="Look.").eval()
    torch.nn.init.normal_(model.grounding.zero_target)
    folder = tmp_path_factory.mktemp("model")
    save_model(model, folder)
    return model, folder


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of the folder that a test may break."""
    return shutil.copytree(saved[1], tmp_path / "copy", ignore=shutil.ignore_patterns("manifest.json"))


@pytest.fixture(scope="module")
def batch(saved, make_pack, talk) -> Batch:
    return saved[0].collator()([make_pack(3, *talk.values()), make_pack(1, talk["red"], seed=2)])


def _same(one, two) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in (
            (one.visual, two.visual),
            (one.text_logits, two.text_logits),
            (one.grounding.logits, two.grounding.logits),
        )
    )


@torch.no_grad()
def test_round_trip_is_exact(saved, batch, make_pack, talk, run_model):
    model, folder = saved
    opened = load_model(folder)
    assert opened.settings == model.settings
    assert opened.objectives is None
    assert not opened.training
    again = opened.collator()([make_pack(3, *talk.values()), make_pack(1, talk["red"], seed=2)])
    assert torch.equal(again.input_ids, batch.input_ids)
    assert torch.equal(again.labels, batch.labels)
    assert _same(run_model(opened, batch), run_model(model, batch))


@torch.no_grad()
def test_a_second_round_trip_changes_nothing(saved, batch, tmp_path, run_model):
    first = load_model(saved[1])
    save_model(first, tmp_path)
    assert not (tmp_path / "training_heads.safetensors").exists()
    assert _same(run_model(load_model(tmp_path), batch), run_model(first, batch))


def test_training_heads_lie_apart(saved):
    model, folder = saved
    heads = load_file(folder / "training_heads.safetensors")
    assert heads.keys() == model.objectives.state_dict().keys()
    assert any(key.startswith("denoiser.") for key in heads)
    assert any(key.endswith("mask_token") for key in heads)
    assert load_file(folder / "spatial.safetensors").keys() == model.grounding.state_dict().keys()
    assert not any("denoiser" in key or "mask_token" in key for key in load_file(folder / "model.safetensors"))


@torch.no_grad()
@pytest.mark.parametrize("damage", ["corrupt", "delete"])
def test_inference_does_not_open_training_heads(saved, copied, batch, run_model, damage):
    heads = copied / "training_heads.safetensors"
    heads.write_bytes(b"not safetensors") if damage == "corrupt" else heads.unlink()
    assert _same(run_model(load_model(copied), batch), run_model(saved[0], batch))


def test_inference_has_the_same_parameters_whatever_was_trained(saved, make_model, tmp_path):
    save_model(make_model("text"), tmp_path)
    counts = [{name: p.numel() for name, p in load_model(folder).named_parameters()} for folder in (saved[1], tmp_path)]
    assert counts[0] == counts[1]
    with_heads = sum(p.numel() for p in saved[0].parameters())
    heads = sum(p.numel() for p in saved[0].objectives.parameters())
    assert heads > 0
    assert sum(counts[0].values()) == with_heads - heads


@torch.no_grad()
def test_plain_transformers_opens_the_folder(saved, batch):
    """No code of this package is needed for the backbone: same words, same logits."""
    model, folder = saved
    plain = AutoModelForImageTextToText.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = tokenizer("where is the red chair?", return_tensors="pt")["input_ids"]
    assert torch.equal(words, torch.tensor([model.tokenizer("where is the red chair?")["input_ids"]]))
    torch.testing.assert_close(plain(input_ids=words).logits, model.backbone(input_ids=words).logits)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in model.backbone.state_dict().items()
    }


@torch.no_grad()
def test_a_plain_folder_gets_fresh_spatial_parts_and_its_missing_tokens(make_pack, talk, tmp_path):
    """A Hugging Face release knows neither <coord> nor <ground>: both are added, nothing else moves."""
    tokenizer = build_tokenizer(["where is it?"], 300)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    renamed = json.dumps(state).replace("<coord>", "<old_a>").replace("<ground>", "<old_b>")
    tokenizer = type(tokenizer)(
        tokenizer_object=tokenizer.backend_tokenizer.from_str(renamed),
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=["<image>"],
        chat_template=tokenizer.chat_template,
    )
    sizes = TinyConfig(
        image_size=24,
        patch_size=4,
        vision_dim=48,
        vision_layers=1,
        vision_heads=4,
        dim=48,
        layers=1,
        heads=4,
        mlp=48,
    )
    backbone = build_tiny_backbone(tokenizer, sizes)
    backbone.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path, view_grid=(3, 3))
    number = len(tokenizer)
    assert model.tokenizer.convert_tokens_to_ids(["<coord>", "<ground>", "<image>"]) == [
        number,
        number + 1,
        2,
    ]
    rows = model.backbone.get_input_embeddings().weight
    assert len(rows) == number + 2
    assert torch.equal(rows[:number], backbone.get_input_embeddings().weight)
    assert model.backbone.lm_head.weight.data_ptr() == rows.data_ptr()
    room = EnteredScene(model, make_pack(2))
    assert isinstance(room.answer([talk["what"]], max_new_tokens=2)[0], str)
    assert room.score_proposals([talk["red"]])[0].cosines.shape == (3,)


def test_options_change_the_settings(saved):
    model = load_model(saved[1], positions="none", view_grid=(2, 2))
    assert model.settings.positions == "none"
    assert model.adapter.view_grid == (2, 2)
    assert model.settings.encoding_scale == 0.5


def test_half_precision_is_half_everywhere(saved):
    model = load_model(saved[1], dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_a_folder_without_config_is_no_model(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a model folder: it has no config.json; give a folder"):
        load_model(tmp_path / "nowhere")


def _edit(path, **changes):
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **changes}))


def test_an_unknown_schema_is_refused(copied):
    _edit(copied / "spatial_config.json", schema=99)
    with pytest.raises(CheckpointError, match=r"spatial_config.json has schema 99; this version reads 1"):
        load_model(copied)


def test_an_unknown_option_gets_a_suggestion(saved, copied):
    with pytest.raises(CheckpointError, match=r"unknown model option 'position' \(did you mean 'positions'\?\)"):
        load_model(saved[1], position="none")
    _edit(copied / "spatial_config.json", encodingscale=1.0)
    with pytest.raises(CheckpointError, match=r"'encodingscale' \(did you mean 'encoding_scale'\?\)"):
        load_model(copied)


@pytest.mark.parametrize("name", ["spatial_config.json", "config.json"])
def test_a_broken_json_file_is_named(copied, name):
    (copied / name).write_text('{"schema": 1,')
    with pytest.raises(CheckpointError, match=name):
        load_model(copied)


def test_files_of_two_models_are_refused(copied):
    _edit(copied / "spatial_config.json", family="qwen2_vl")
    with pytest.raises(
        CheckpointError, match=r"written for the family 'qwen2_vl' but config.json is a 'llava_onevision'"
    ):
        load_model(copied)


@pytest.mark.parametrize("family", ["llava_onevision2", "qwen2", "no_such_family"])
def test_an_unknown_family_is_named_with_the_known_ones(copied, family):
    (copied / "spatial_config.json").unlink()
    _edit(copied / "config.json", model_type=family)
    with pytest.raises(CheckpointError, match=rf"no adapter for the model family '{family}' .*llava_onevision"):
        load_model(copied)


def test_a_grounding_head_of_another_width_is_refused(copied):
    save_file(GroundingHead(40).state_dict(), copied / "spatial.safetensors")
    with pytest.raises(CheckpointError, match=r"another architecture: .*zero_target|of another shape .*40.*48"):
        load_model(copied)


def test_missing_and_unknown_tensors_are_named(saved, tmp_path):
    state = saved[0].grounding.state_dict()
    state["zero_targets"] = state.pop("zero_target").clone()
    save_file({k: v.clone() for k, v in state.items()}, tmp_path / "spatial.safetensors")
    with pytest.raises(
        CheckpointError, match=r"1 keys missing \['zero_target'\], 1 unknown \['zero_targets'\], 0 of another"
    ):
        load_tensors(GroundingHead(48), tmp_path / "spatial.safetensors")


def test_weights_of_another_architecture_are_refused(copied):
    """A config with one more layer than the weights have."""
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    config["text_config"].pop("layer_types", None)
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"model.safetensors does not fit config.json.*layers.2"):
        load_model(copied)


def test_an_objective_without_its_target_is_named_before_training(make_model, make_pack):
    model = make_model("text", "cross_view")
    model.objectives.check(model.collator()([make_pack(2)]))
    bare = make_pack(2).replace(view_targets={"view_features": torch.zeros(2, 3, 3, 4)})
    with pytest.raises(RecipeError) as raised:
        model.objectives.check(model.collator()([bare]))
    for part in ("'cross_view'", "'view_latents'", "['view_features']", "teachers:"):
        assert part in str(raised.value)


def test_an_opened_model_cannot_be_trained_by_accident(saved, batch):
    with pytest.raises(RuntimeError, match="opened for inference"):
        load_model(saved[1])(batch, due=("text",), seed=0)


def test_models_open_save_and_enter_as_hugging_faces_do(tiny_base, tiny_rooms, tmp_path):
    from stereopsis.models import SpatialModel
    from stereopsis.scenes import Scene

    model = SpatialModel.from_pretrained(tiny_base)
    model.save_pretrained(tmp_path / "again")
    again = SpatialModel.from_pretrained(tmp_path / "again")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    scene = Scene.open(sorted(tiny_rooms.glob("room-*"))[0])
    assert scene.save(tmp_path / "room") == tmp_path / "room"
    assert Scene.open(tmp_path / "room").id == scene.id
    assert isinstance(again.enter(scene, views=2).ask("how many chairs are there?"), str)


def test_a_model_is_pushed_whole_with_its_card(saved, batch, run_model, tmp_path, monkeypatch):
    model, _ = saved
    asked = {}

    class Hub:
        def __init__(self, token=None):
            asked["token"] = token

        def create_repo(self, name, *, private, exist_ok):
            asked.update(name=name, private=private, exist_ok=exist_ok)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / "hub")
            return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    monkeypatch.setattr(storage, "HfApi", Hub)
    (tmp_path / "card.md").write_text("# A model")
    assert model.push_to_hub("me/mine", card=tmp_path / "card.md", token="t") == "https://hub/me/mine/commit/1"
    assert asked == {"token": "t", "name": "me/mine", "private": True, "exist_ok": True}
    assert (tmp_path / "hub" / "README.md").read_text() == "# A model"
    assert _same(run_model(load_model(tmp_path / "hub"), batch), run_model(model, batch))
