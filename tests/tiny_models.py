"""A two-layer model on 24-pixel views, hand-made packs, and one model that has learned a few answers by heart."""

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from stereopsis.data.batch import SceneProposals
from stereopsis.data.pack import Conversation, ScenePack
from stereopsis.models.families import LlavaOnevisionAdapter
from stereopsis.models.spatial import SpatialConfig, SpatialModel
from stereopsis.models.tiny import TinyConfig, build_tiny_backbone, build_tokenizer
from stereopsis.objectives import CrossView, Denoiser, DenoiserConfig, GroundingLoss, TextLoss
from stereopsis.objectives.set import ObjectiveSet

TINY = TinyConfig(
    image_size=24,
    patch_size=4,
    vision_dim=48,
    vision_layers=2,
    vision_heads=4,
    dim=48,
    layers=2,
    heads=4,
    mlp=96,
    vocabulary=320,
)
WORDS = ["where is the red chair? on the table", "the blue lamp beside the bed", "how many chairs? two"] * 3

TALK = (
    Conversation(id="where", task="scanqa", prompt="where is the chair?", answer="on the table"),
    Conversation(id="many", task="sqa3d", prompt="how many?", answer="two"),
    Conversation(id="what", task="scan2cap", prompt="what is at <coord> ?", answer="the lamp", point=(1.0, -2.0, 0.5)),
    Conversation(id="red", task="scanrefer", prompt="the red chair", answer="<ground>", positives=(1,)),
    Conversation(id="both", task="multi3drefer", prompt="the lamp and the bed", answer="<ground>", positives=(0, 2)),
    Conversation(id="none", task="multi3drefer", prompt="the blue bed", answer="<ground>"),
)


@pytest.fixture(scope="session")
def talk() -> dict[str, Conversation]:
    """Conversations of every kind, by id; their positives fit scenes of three proposals and more."""
    return {conversation.id: conversation for conversation in TALK}


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer(WORDS, TINY.vocabulary)


@pytest.fixture(scope="session")
def untrained_backbone(tokenizer):
    torch.manual_seed(0)
    return build_tiny_backbone(tokenizer, TINY).eval()


@pytest.fixture(scope="session")
def in_double() -> Callable[[nn.Module], None]:
    """`_in_double`, for backbones that were opened elsewhere."""
    return _in_double


def _in_double(backbone: nn.Module) -> None:
    """Every operation in float64: Hugging Face computes norms and eager attention in float32, whatever the dtype."""
    backbone.double()
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if isinstance(child, Qwen2RMSNorm):
                exact = nn.RMSNorm(len(child.weight), eps=child.variance_epsilon, dtype=torch.float64)
                exact.weight = child.weight
                setattr(module, name, exact)


def _objectives(names: Sequence[str]) -> ObjectiveSet:
    denoiser = Denoiser(
        DenoiserConfig(condition_dim=TINY.dim, channels=4, width=16, depth=1, heads=2, view_grid=(2, 2))
    )
    made = {
        "text": lambda: TextLoss(),
        "grounding": lambda: GroundingLoss(),
        "cross_view": lambda: CrossView(denoiser, ratio=0.5, conditioning="released"),
    }
    return ObjectiveSet({name: made[name]() for name in names}, denoiser if "cross_view" in names else None)


@pytest.fixture(scope="session")
def make_model(tokenizer, untrained_backbone) -> Callable[..., SpatialModel]:
    """A function that gives a fresh model: always the same weights; `double` computes all of it in float64."""

    def make(*objectives: str, double: bool = False, view_grid=(3, 3), **config) -> SpatialModel:
        backbone = copy.deepcopy(untrained_backbone)
        backbone.set_attn_implementation("sdpa")  # as saved models are opened
        if double:
            _in_double(backbone)
        torch.manual_seed(1)
        model = SpatialModel(
            backbone=backbone,
            adapter=LlavaOnevisionAdapter(backbone, view_grid),
            tokenizer=tokenizer,
            config=SpatialConfig(view_grid=view_grid, **config),
            objectives=_objectives(objectives) if objectives else None,
        )
        return model.double() if double else model

    return make


def _boxes(numbers: torch.Tensor) -> torch.Tensor:
    """Boxes within 2 m of the origin, with sides of 0.2 to 1.2 m, from numbers in 0..1."""
    return torch.cat([numbers[:, :3] * 4 - 2, numbers[:, 3:] + 0.2], dim=1)


@pytest.fixture(scope="session")
def make_pack() -> Callable[..., ScenePack]:
    """A function that makes a pack of random pixels, 3x3 cells a view and 6x6 encoder cells; `seed` decides all."""

    def make(
        views: int,
        *conversations: Conversation,
        seed: int = 0,
        proposals: int = 3,
        grid: tuple[int, int] = (3, 3),
    ) -> ScenePack:
        generator = torch.Generator().manual_seed(seed)

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=generator)

        valid = uniform(views, *grid) < 0.8
        cells = uniform(proposals, views, 6, 6) < 0.2
        cells[-1:] = False  # the last proposal is seen by no view
        return ScenePack(
            scene_id=f"scene{seed}",
            frame_names=tuple(f"{seed}/{view}" for view in range(views)),
            images=torch.randint(0, 256, (views, 3, 24, 24), generator=generator, dtype=torch.uint8),
            coordinates=(uniform(views, *grid, 3) * 6 - 3) * valid[..., None],
            coordinates_valid=valid,
            cameras=torch.eye(4).repeat(views, 1, 1),
            intrinsics=torch.eye(3).repeat(views, 1, 1),
            proposals=SceneProposals(boxes=_boxes(uniform(proposals, 6)), cells=cells),
            view_targets={"view_latents": torch.randn(views, 2, 2, 4, generator=generator)},
            conversations=conversations,
        )

    return make


@pytest.fixture(scope="session")
def run_model() -> Callable:
    """A function that runs a model's forward pass with a fixed seed and returns the `SpatialOutputs`."""

    def run(model: SpatialModel, batch, *, due: tuple[str, ...] = (), seed: int = 0):
        return model.outputs(batch, due, torch.Generator().manual_seed(seed))

    return run


@pytest.fixture(scope="session")
def memorised(make_model, make_pack) -> SimpleNamespace:
    """A model that has learned one scene's conversations by heart, so that its answers differ in length."""
    model = make_model("text", "grounding").train()
    pack = make_pack(3, *TALK, proposals=4)
    batch = model.collator()([pack])
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=4e-3)
    for step in range(60):
        losses = model(batch, due=("text", "grounding"), seed=step)
        total = sum(loss.sum / loss.count for loss in losses.values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    return SimpleNamespace(model=model.eval(), pack=pack, loss=float(total.detach()))
