"""From a recipe to model, teachers and objectives: one denoiser for all, nothing missing, nothing loaded in vain."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stereopsis.data.layout import VisualLayout
from stereopsis.errors import CheckpointError, RecipeError, StereopsisError
from stereopsis.models.storage import load_model
from stereopsis.objectives import Denoiser, DenoiserConfig, RectifiedFlow, released_state_dict
from stereopsis.objectives.base import Masking, Objective, ObjectiveLoss
from stereopsis.objectives.set import ObjectiveSet
from stereopsis.training.build import build_model, build_objectives, build_teachers, count_parameters
from stereopsis.training.recipe import load_recipe

RECONSTRUCTIONS = ("vanilla", "cross_view", "birds_eye")


def targets(**changes) -> dict[str, torch.Tensor]:
    """Targets of two scenes with three views each."""
    plain = {
        "view_latents": torch.zeros(6, 2, 3, 12),
        "birdseye_latents": torch.zeros(2, 4, 4, 12),
        "birdseye_valid": torch.ones(2, 4, 4, dtype=torch.bool),
        "view_features": torch.zeros(6, 3, 3, 7),
        "view_features_valid": torch.ones(6, 3, 3, dtype=torch.bool),
    }
    return {key: value for key, value in plain.items() if key not in changes.get("without", ())}


def keys_of(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


def test_reconstruction_objectives_share_one_denoiser_that_is_counted_and_stored_once(make_recipe):
    together = build_objectives(make_recipe(*RECONSTRUCTIONS), 48, targets())
    assert all(together[name].denoiser is together.denoiser for name in RECONSTRUCTIONS)
    alone = sum(p.numel() for p in together.denoiser.parameters())
    mask_token = 48
    assert sum(p.numel() for p in together.parameters()) == alone + mask_token
    keys = together.state_dict().keys()
    assert all(key.startswith("denoiser.") for key in keys - {"members.cross_view.mask_token"})
    assert len(keys) == len(together.denoiser.state_dict()) + 1


def test_the_denoiser_is_sized_by_the_targets_and_the_recipe(make_recipe):
    recipe = make_recipe("vanilla", "birds_eye", denoiser={"width": 16, "depth": 2, "heads": 4})
    config = build_objectives(recipe, 20, targets()).denoiser.config
    assert dataclasses.asdict(config) | {
        "condition_dim": 20,
        "channels": 12,
        "view_grid": (2, 3),
        "birdseye_grid": (4, 4),
        "width": 16,
        "depth": 2,
        "heads": 4,
    } == dataclasses.asdict(config)


def test_without_reconstruction_there_is_no_denoiser(make_recipe):
    objectives = build_objectives(make_recipe("text", "grounding", "alignment"), 48, targets())
    assert objectives.denoiser is None
    assert {name for name, _ in objectives} == {"text", "grounding", "alignment"}
    # the alignment head: 48 -> 96 -> 7 with biases
    assert sum(p.numel() for p in objectives.parameters()) == 48 * 96 + 96 + 96 * 7 + 7


def test_objectives_get_what_the_recipe_says(make_recipe):
    recipe = make_recipe(
        objectives={
            "cross_view": {"ratio": 0.5, "every": 3, "weight": 0.25, "conditioning": "released", "repeats": 2},
            "alignment": {"distance": "cosine"},
        }
    )
    objectives = build_objectives(recipe, 48, targets())
    cross_view = objectives["cross_view"]
    assert (cross_view.ratio, cross_view.every, cross_view.weight) == (0.5, 3, 0.25)
    assert (cross_view.conditioning, cross_view.repeats) == ("released", 2)
    assert objectives["alignment"].distance == "cosine"


def test_heads_on_cells_get_what_the_recipe_says(make_recipe):
    recipe = make_recipe(
        objectives={
            "text": {},
            "depth": {"layers": [2, -1], "projector": "conv", "object_weight": 3.0, "shuffle": True},
            "point_map": {"frame": "aligned"},
            "rays": {"origin": 0.5},
            "camera_pose": {"translation": 2.0},
            "alignment": {"projector": "conv", "normalise": "spatial", "gamma": 0.5},
        }
    )
    points = {"view_points": torch.zeros(6, 3, 3, 3), "view_points_valid": torch.ones(6, 3, 3, dtype=torch.bool)}
    objectives = build_objectives(recipe, 48, {**targets(), **points})
    depth, alignment = objectives["depth"], objectives["alignment"]
    assert (depth.read, depth.projector, depth.object_weight, depth.shuffle) == ((2, -1), "conv", 3.0, True)
    assert depth.head.weight.shape == (1, 48, 3, 3)
    assert (alignment.normalise, alignment.gamma, alignment.shuffle) == ("spatial", 0.5, False)
    assert objectives["point_map"].frame == "aligned"
    assert (objectives["rays"].origin, objectives["camera_pose"].translation) == (0.5, 2.0)
    assert [objectives[n].head[2].out_features for n in ("point_map", "rays", "camera_pose")] == [3, 6, 9]


def test_the_same_seed_gives_the_same_heads(make_recipe):
    def heads(seed: int) -> torch.Tensor:
        return build_objectives(make_recipe("text", "cross_view", seed=seed), 48, targets())["cross_view"].mask_token

    assert torch.equal(heads(1), heads(1))
    assert not torch.equal(heads(1), heads(2))


@pytest.mark.parametrize(
    ("objective", "missing"),
    [
        ("vanilla", "view_latents"),
        ("cross_view", "view_latents"),
        ("birds_eye", "birdseye_latents"),
        ("birds_eye", "birdseye_valid"),
        ("alignment", "view_features"),
        ("alignment", "view_features_valid"),
    ],
)
def test_an_objective_without_its_target_is_refused_by_name_with_a_remedy(make_recipe, objective, missing):
    with pytest.raises(RecipeError) as caught:
        build_objectives(make_recipe("text", objective), 48, targets(without=(missing,)))
    message = str(caught.value)
    assert f"objective '{objective}' needs the target '{missing}'" in message
    assert "birdseye_valid" in message.replace(f"'{missing}'", "") or missing == "birdseye_valid"  # what there is
    assert "under 'teachers:'" in message


def test_no_targets_at_all_are_reported_as_none(make_recipe):
    with pytest.raises(RecipeError, match="the data provide only none"):
        build_objectives(make_recipe("text", "cross_view"), 48, {})


def test_only_the_teachers_that_objectives_ask_for_are_loaded(make_recipe):
    nowhere = {"latent": "taef1:/nowhere", "features": "no_such_teacher"}
    assert build_teachers(make_recipe("text", "grounding", teachers=nowhere)).latent is None
    teachers = build_teachers(make_recipe("birds_eye", teachers={"latent": "pixels", "features": "no_such_teacher"}))
    assert (teachers.latent.name, teachers.features) == ("pixels", None)
    teachers = build_teachers(make_recipe("alignment", teachers={"latent": "taef1:/nowhere"}))
    assert teachers.latent is None
    assert teachers.features is not None


@pytest.mark.parametrize("section", [{"latent": "taef2:x"}, {"latent": "taef1:/nowhere"}, {"features": "vgggt"}])
def test_an_unknown_teacher_is_an_error_for_people(make_recipe, section):
    with pytest.raises(StereopsisError):
        build_teachers(make_recipe("cross_view", "alignment", teachers={"latent": "pixels", **section}))


@pytest.mark.parametrize("name", ["view_size", "birdseye_size"])
def test_a_picture_size_that_the_teacher_cannot_take_is_refused_at_once(make_recipe, name):
    sizes = {"latent": "pixels", "view_size": 32, "birdseye_size": 32, name: 33}
    with pytest.raises(RecipeError, match=rf"teachers\.{name}: .*multiples of 8 px, got 33x33"):
        build_teachers(make_recipe("vanilla", teachers=sizes))


def test_the_models_settings_come_from_the_recipe(make_recipe, tiny_base):
    plain = build_model(make_recipe("text")).settings
    assert (plain.view_grid, plain.positions, plain.train_vision) == ((3, 3), "depth", False)
    changes = {
        "view_grid": (2, 2),
        "positions": "noisy",
        "train_vision": True,
        "instruction": "Look.",
        "encoding_scale": 0.5,
    }
    model = build_model(make_recipe("text", model={"base": str(tiny_base), **changes}))
    for name, value in changes.items():
        assert getattr(model.settings, name) == value
    assert model.adapter.view_template(model.tokenizer).rows == 2
    assert all(p.requires_grad for p in model.adapter.vision_tower.parameters())
    blind = build_model(make_recipe("text", model={"base": str(tiny_base), "blind": True}))
    assert blind.settings.positions == "none"


def test_a_fresh_grounding_head_depends_on_the_seed_alone(make_recipe, tiny_base, tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns("spatial*", "manifest.json"))

    def zero_target(seed: int) -> torch.Tensor:
        model = {"base": str(folder), "view_grid": (3, 3)}
        return build_model(make_recipe("grounding", model=model, seed=seed)).grounding.zero_target

    assert torch.equal(zero_target(1), zero_target(1))
    assert not torch.equal(zero_target(1), zero_target(2))


def test_a_base_that_is_no_model_is_refused(make_recipe, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        build_model(make_recipe("text", model={"base": "no/such/base"}))
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        build_model(make_recipe("text", model={"base": str(tmp_path)}))


def test_parameters_are_counted_by_part(finished_run):
    count = count_parameters(finished_run.model)
    model = finished_run.model
    assert count.training_heads == sum(p.numel() for p in model.objectives.parameters())
    assert count.backbone == sum(p.numel() for p in model.backbone.parameters())
    frozen = sum(p.numel() for p in model.adapter.vision_tower.parameters())
    assert count.trained == count.backbone + count.grounding + count.training_heads - frozen


def test_training_heads_are_stored_apart_and_inference_never_reads_them(finished_run, tmp_path):
    folder = finished_run.folder / "model"
    heads, spatial, backbone = (
        keys_of(folder / f"{name}.safetensors") for name in ("training_heads", "spatial", "model")
    )
    assert heads == set(finished_run.model.objectives.state_dict())
    assert spatial == set(finished_run.model.grounding.state_dict())
    assert not any("denoiser" in key or "members" in key or "mask_token" in key for key in spatial | backbone)
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    (copy / "training_heads.safetensors").write_bytes(b"not read")
    model = load_model(copy)
    assert model.objectives is None
    assert torch.equal(model.grounding.zero_target, finished_run.model.grounding.zero_target)


class Hides(Objective):
    """Hides the views that it is told to, painting them with a number."""

    def __init__(self, views: list[int], colour: float, *, every: int = 1) -> None:
        super().__init__(every=every)
        self.views, self.colour = views, colour

    def count(self, batch) -> float:
        return 1.0

    def mask(self, tokens, layout, generator):
        hidden = torch.zeros(len(tokens), dtype=torch.bool)
        hidden[self.views] = True
        return Masking(tokens=torch.where(hidden[:, None, None, None], self.colour, tokens), hidden=hidden)

    def loss(self, outputs, batch, generator) -> ObjectiveLoss:
        return ObjectiveLoss(sum=outputs.visual.sum(), count=1.0)


def test_a_set_hides_what_its_due_members_hide_one_after_another():
    objectives = ObjectiveSet({"a": Hides([0, 1], 5.0), "b": Hides([1], 7.0, every=2), "c": Hides([2], 9.0, every=3)})
    assert [objectives.due(step) for step in range(4)] == [("a", "b", "c"), ("a",), ("a", "b"), ("a", "c")]
    assert "a" in objectives
    assert "d" not in objectives
    layout = VisualLayout(index=torch.zeros(4, 1, 1, dtype=torch.int64), scene=torch.zeros(4, dtype=torch.int64))
    tokens = torch.zeros(4, 1, 1, 2)
    result = objectives.mask(tokens, layout, ("a", "b"), torch.Generator())
    assert result.hidden.tolist() == [True, True, False, False]
    assert result.tokens[:, 0, 0, 0].tolist() == [5.0, 7.0, 0.0, 0.0]
    assert objectives.mask(tokens, layout, (), torch.Generator()).hidden.sum() == 0


# ---- the denoiser's process, and where it starts


def test_process_dropout_and_options_follow_the_recipe(make_recipe):
    recipe = make_recipe(
        objectives={
            "cross_view": {"conditioning": "pose", "latents": "mean", "grounding": "skip"},
            "birds_eye": {"grounding": "skip"},
        },
        denoiser={"width": 16, "depth": 1, "heads": 4, "diffusion": "flow", "times": "logit_normal", "dropout": 0.1},
    )
    objectives = build_objectives(recipe, 48, targets())
    cross_view, birds_eye = objectives["cross_view"], objectives["birds_eye"]
    assert isinstance(cross_view.diffusion, RectifiedFlow)
    assert (cross_view.diffusion.times, objectives.denoiser.config.dropout) == ("logit_normal", 0.1)
    assert (cross_view.latents, cross_view.grounding) == ("mean", "skip")
    assert (birds_eye.latents, birds_eye.grounding) == ("sample", "skip")
    heads = {key.split(".")[2] for key in objectives.state_dict() if key.startswith("members.")}
    assert heads == {"mask_token", "pose"}


def released_file(path: Path, *, dim: int = 48, width: int = 32, mask: int | None = 48) -> Path:
    """A released denoiser for the targets above, of random weights."""
    denoiser = Denoiser(
        DenoiserConfig(
            condition_dim=dim, channels=12, width=width, depth=2, heads=16, view_grid=(3, 3), birdseye_grid=(5, 5)
        )
    )
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter)
    save_file(released_state_dict(denoiser, None if mask is None else torch.randn(mask)), path)
    return path


def test_a_denoiser_starts_from_released_weights_if_the_recipe_says_so(make_recipe, tmp_path):
    path = released_file(tmp_path / "ross3d.safetensors")
    size = {"width": 32, "depth": 2, "heads": 16}
    recipe = make_recipe("cross_view", "birds_eye", denoiser={**size, "init": str(path)})
    objectives = build_objectives(recipe, 48, targets())
    stored, state = load_file(path), objectives.denoiser.state_dict()
    prefix = "model.mm_inv_projector.net."
    resized = {"pos_embed_view", "pos_embed_bev", "z_embedder_view.cls_token", "z_embedder_bev.cls_token"}
    assert {key for key in state if state[key].shape != stored[prefix + key].shape} == resized
    assert all(state[key].equal(stored[prefix + key]) for key in state.keys() - resized)
    assert objectives["cross_view"].mask_token.equal(stored["model.mask_token"])
    again = load_recipe_text(recipe.to_yaml(), tmp_path)
    assert again.denoiser.init == path


def load_recipe_text(text: str, folder: Path):
    (folder / "again.yaml").write_text(text)
    return load_recipe(folder / "again.yaml")


def test_a_start_that_does_not_fit_is_refused(make_recipe, tmp_path):
    size = {"width": 32, "depth": 2, "heads": 16}
    for made, message in (
        ({"width": 48}, r"attn\.proj\.bias is \(48,\), expected \(32,\)"),
        ({"dim": 40}, r"z_embedder_bev\.proj\.1\.weight is \(32, 40\), expected \(32, 48\)"),
        ({"mask": 40}, "its mask token has 40 features, the model's tokens 48"),
    ):
        path = released_file(tmp_path / "file.safetensors", **made)
        recipe = make_recipe("cross_view", "birds_eye", denoiser={**size, "init": str(path)})
        with pytest.raises(CheckpointError, match=message):
            build_objectives(recipe, 48, targets())
    recipe = make_recipe("text", "cross_view", denoiser={**size, "init": str(tmp_path / "absent.bin")})
    with pytest.raises(CheckpointError, match="no such file"):
        build_objectives(recipe, 48, targets())
