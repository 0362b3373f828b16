"""Predicted operations against PyTorch's own counter, on tiny models of every family."""

import math

import pytest
import torch
from families import BUILDERS, family_tokenizer, tiny_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stereopsis.data.batch import SceneProposals
from stereopsis.data.pack import Conversation, ScenePack
from stereopsis.objectives import (
    BirdsEye,
    CrossView,
    Denoiser,
    DenoiserConfig,
    FeatureAlignment,
    GroundingLoss,
    TextLoss,
)
from stereopsis.objectives.reconstruction import VanillaReconstruction
from stereopsis.objectives.set import ObjectiveSet
from stereopsis.training.cost_flops import seen_pairs, step_flops
from stereopsis.training.cost_units import SceneLoad, StepFlops, scene_loads

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
TALK = (
    Conversation(id="where", task="scanqa", prompt="where is the chair?", answer="on the table"),
    Conversation(id="many", task="sqa3d", prompt="how many chairs are there beside the bed?", answer="two"),
    Conversation(id="red", task="scanrefer", prompt="the red chair", answer="<ground>", positives=(1,)),
)
VIEWS = 6


@pytest.fixture(scope="module")
def words():
    return family_tokenizer()


def objectives(*names: str, conditioning: str = "released") -> ObjectiveSet:
    denoiser = Denoiser(
        DenoiserConfig(condition_dim=48, channels=4, width=16, depth=2, heads=2, view_grid=(2, 2), birdseye_grid=(3, 3))
    )
    made = {
        "text": lambda: TextLoss(),
        "grounding": lambda: GroundingLoss(),
        "vanilla": lambda: VanillaReconstruction(denoiser, ratio=0.5),
        "cross_view": lambda: CrossView(denoiser, ratio=0.34, conditioning=conditioning),
        "birds_eye": lambda: BirdsEye(denoiser, repeats=2),
        "alignment": lambda: FeatureAlignment(48, 10),
    }
    return ObjectiveSet({name: made[name]() for name in names}, denoiser)


def pack(model, talk=TALK, views: int = VIEWS) -> ScenePack:
    size, grid = model.adapter.image_size, model.settings.view_grid
    return ScenePack(
        scene_id="scene",
        frame_names=tuple(str(view) for view in range(views)),
        images=torch.randint(0, 256, (views, 3, size, size), dtype=torch.uint8),
        coordinates=torch.rand(views, *grid, 3),
        coordinates_valid=torch.ones(views, *grid, dtype=torch.bool),
        cameras=torch.eye(4).repeat(views, 1, 1),
        intrinsics=torch.eye(3).repeat(views, 1, 1),
        proposals=SceneProposals(
            boxes=torch.rand(5, 6) + 0.2,
            cells=torch.ones(5, views, *model.adapter.encoder_grid, dtype=torch.bool),
            token_cells=torch.ones(5, views, *grid, dtype=torch.bool),
        ),
        view_targets={
            "view_latents": torch.randn(views, 2, 2, 4),
            "view_features": torch.randn(views, *grid, 10),
            "view_features_valid": torch.ones(views, *grid, dtype=torch.bool),
        },
        scene_targets={
            "birdseye_latents": torch.randn(3, 3, 4),
            "birdseye_valid": torch.ones(3, 3, dtype=torch.bool),
        },
        conversations=talk,
    )


def counted(model, batch, due) -> tuple[float, float]:
    """Forward and backward operations that PyTorch counts."""
    model.train()
    with sdpa_kernel(SDPBackend.MATH):  # matrix products: PyTorch does not count the CPU's fused kernel
        with FlopCounterMode(display=False) as forward:
            losses = model(batch, due=due, seed=0)
        with FlopCounterMode(display=False) as backward:
            sum(loss.sum for loss in losses.values()).backward()
    return float(forward.get_total_flops()), float(backward.get_total_flops())


def predicted(model, batch, due) -> StepFlops:
    return step_flops(model, scene_loads(batch), due=dict.fromkeys(due, 1.0), attention="dense")


@pytest.mark.parametrize(
    ("family", "train_vision"),
    [
        *((family, False) for family in sorted(BUILDERS)),
        *((f, True) for f in ("llava_onevision", "qwen2_5_vl", "qwen3_vl")),
    ],
)
def test_every_familys_step_costs_what_pytorch_counts(words, family, train_vision):
    """PyTorch also counts the rotary positions' outer product, and that Qwen-VL's towers run their merger in vain."""
    due = ("text", "grounding", "cross_view", "birds_eye", "alignment")
    torch.manual_seed(0)
    model = tiny_model(family, words, objectives=objectives(*due), train_vision=train_vision)
    model.adapter.attend("eager")  # matrix products, whose backward pass is twice the forward one
    batch = model.collator()([pack(model), pack(model, TALK[:1])])
    forward, backward = counted(model, batch, due)
    cost = predicted(model, batch, due)
    total, in_vain = cost.total, cost.parts["projector"].forward if family.startswith("qwen") else 0
    assert total.forward == pytest.approx(forward - in_vain, rel=0.01)
    assert total.backward == pytest.approx(backward, rel=0.01)


@pytest.mark.parametrize(
    ("name", "conditioning"),
    [
        ("vanilla", "released"),
        ("cross_view", "released"),
        ("cross_view", "masked_positions"),
        ("birds_eye", "released"),
        ("alignment", "released"),
        ("grounding", "released"),
    ],
)
def test_every_head_costs_what_pytorch_counts(words, name, conditioning):
    """The step with an objective against the same step without it, to within a percent of the head alone."""
    torch.manual_seed(0)
    model = tiny_model("llava_onevision", words, objectives=objectives("text", name, conditioning=conditioning))
    talk = TALK if name == "grounding" else TALK[:2]
    batch, without = (model.collator()([pack(model, t)]) for t in (talk, TALK[:2]))
    ours = predicted(model, batch, ("text", name)).parts
    if name == "grounding":
        model.train()
        with FlopCounterMode(display=False) as counter:
            objects = [torch.randn(5, 48, requires_grad=True)]
            model.grounding(torch.randn(1, 48, requires_grad=True), torch.zeros(1, dtype=torch.int64), objects)
        scored = 2 * 1 * 6 * 48  # the query against five boxes and the zero target
        averaged = ours["grounding"].forward - (counter.get_total_flops() - scored)
        rows, cols = model.adapter.encoder_grid
        assert averaged == 2 * 5 * VIEWS * rows * cols * 48
        return
    whole, plain = counted(model, batch, ("text", name)), counted(model, without, ("text",))
    for part, (one, other) in zip(("forward", "backward"), zip(whole, plain, strict=True), strict=True):
        assert getattr(ours[name], part) == pytest.approx(one - other, rel=0.03), part


def test_cached_views_cost_no_tower_and_frozen_parts_no_gradients(words):
    model = tiny_model("llava_onevision", words, objectives=objectives("text"))
    loads = [SceneLoad(views=2, prefix=30, conversations=(10,), labelled=3)]
    whole = step_flops(model, loads)
    cached = step_flops(model, loads, vision=False)
    assert whole.total.forward - cached.total.forward == whole.parts["vision tower"].forward > 0
    assert whole.parts["vision tower"].backward == 0
    assert cached.parts["language model"] == whole.parts["language model"]
    assert whole.parts["language model"].backward == 2 * whole.parts["language model"].forward
    model.backbone.requires_grad_(False)
    frozen = step_flops(model, loads).parts
    assert frozen["language model"].backward == frozen["language model"].forward
    assert frozen["projector"].backward == 0


def test_checkpointing_repeats_the_forward_pass_of_the_layers_alone(words):
    model = tiny_model("llava_onevision", words, objectives=objectives("text"))
    loads = [SceneLoad(views=2, prefix=30, conversations=(10,), labelled=3)]
    plain, saving = (step_flops(model, loads, checkpointing=on) for on in (False, True))
    assert plain.total.recompute == 0
    layers = plain.parts["language model"].forward + plain.parts["attention"].forward
    assert saving.total.executed == plain.total.executed + layers
    assert saving.total.model == plain.total.model


def test_an_objective_weighs_as_often_as_it_is_due(words):
    model = tiny_model("llava_onevision", words, objectives=objectives("text", "cross_view"))
    model.objectives["cross_view"].every = 4
    loads = [SceneLoad(views=VIEWS, prefix=100)]
    always = step_flops(model, loads, due={"cross_view": 1.0}).parts["cross_view"].forward
    assert step_flops(model, loads).parts["cross_view"].forward == always / 4
    assert "cross_view" not in step_flops(model, loads, due={"text": 1.0}).parts
    assert step_flops(model, loads).full_precision == {"cross_view"}


@pytest.mark.parametrize("family", ["llava_onevision", "gemma3"])
def test_pairs_are_those_that_the_mask_lets_through(words, family):
    """Counted one by one in the family's own mask: windows, views that see themselves, several conversations."""
    model = tiny_model(family, words)
    batch = model.collator()([pack(model, views=3)])
    mask = model.attention(batch, torch.float32)
    (load,) = scene_loads(batch)
    if family == "gemma3":
        cells, window = math.prod(model.settings.view_grid), model.backbone.config.text_config.sliding_window
        assert (mask["full_attention"] == 0).sum() == seen_pairs(load, None, cells)
        assert (mask["sliding_attention"] == 0).sum() == seen_pairs(load, window, cells)
        assert seen_pairs(load, 5, 9) > seen_pairs(load, 5)
    else:
        assert (mask == 0).sum() == seen_pairs(load)


def test_a_packed_pass_costs_less_than_its_conversations_apart(words):
    """At Video-3D-LLM's lengths 16 conversations behind one prefix cost about a fourteenth of 16 passes."""
    packed = SceneLoad(views=32, prefix=6780, conversations=(48,) * 16, labelled=128)
    alone = SceneLoad(views=32, prefix=6780, conversations=(48,), labelled=8)
    model = tiny_model("llava_onevision", words, objectives=objectives("text"))
    ratio = 16 * step_flops(model, [alone]).total.model / step_flops(model, [packed]).total.model
    assert 13 < ratio < 16
    assert packed.tokens == 6780 + 16 * 48
