"""Small hand-made scenes, packs and a tokenizer for the tests of views, packs and batches."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from stereopsis.annotations import Annotation
from stereopsis.data.batch import SceneProposals
from stereopsis.data.pack import Conversation, ScenePack
from stereopsis.geometry import Intrinsics
from stereopsis.models.tiny import build_tokenizer
from stereopsis.scenes.scene import Frame, Proposal, Scene, SceneObject

WORDS = ["where is the red chair? on the table", "the blue lamp beside the bed", "how many chairs? two"] * 3


def _wall(camera: Intrinsics, depth: float) -> np.ndarray:
    """A wall at z = depth, seen head-on: red rises with world x, green with world y, 40 levels a metre."""
    x = (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx * depth
    y = (np.arange(camera.height) + 0.5 - camera.cy) / camera.fy * depth
    red, green = np.broadcast_arrays(128 + 40 * x, (128 + 40 * y)[:, None])
    return np.clip(np.rint(np.stack([red, green, np.full_like(red, 7)], axis=-1)), 0, 255).astype(np.uint8)


def _slanted(camera: Intrinsics, near: float, slope: float) -> np.ndarray:
    """z-depth of the plane z = near + slope * x at every pixel centre."""
    ray = (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx
    depth = near / (1 - slope * ray)
    return np.broadcast_to(depth, (camera.height, camera.width)).astype(np.float32)


@pytest.fixture
def wall_frame() -> Callable[..., Frame]:
    """A function that photographs a slanted or head-on wall with a camera whose principal point is off centre."""

    def make(width: int = 90, height: int = 60, *, depth_camera: Intrinsics | None = None, slope: float = 0.0) -> Frame:
        camera = Intrinsics(fx=40.0, fy=44.0, cx=width / 2 + 3, cy=height / 2 - 2, width=width, height=height)
        return Frame(
            name="wall",
            T_world_camera=np.eye(4),
            intrinsics=camera,
            load_colour=functools.partial(_wall, camera, 2.0),
            load_depth=functools.partial(_slanted, depth_camera or camera, 2.0, slope),
            depth_intrinsics=depth_camera,
        )

    return make


@pytest.fixture
def furnished() -> Scene:
    """A scene without frames: two overlapping tables, a lamp, two proposals, one annotation of every task."""
    boxes = {
        1: ("table", [0.0, 0.0, 0.5, 2.0, 1.0, 1.0]),
        2: ("table", [0.5, 0.0, 0.5, 2.0, 1.0, 1.0]),  # IoU with the first: 1.5 / 2.5 = 0.6
        3: ("lamp", [5.0, 5.0, 1.0, 0.5, 0.5, 0.5]),
    }
    objects = tuple(SceneObject(id=i, label=label, box=np.array(box)) for i, (label, box) in boxes.items())
    common = {"scene_id": "furnished", "type": "what"}
    return Scene(
        id="furnished",
        frames=(),
        objects=objects,
        proposals=(
            Proposal(box=np.array([0.2, 0.0, 0.5, 2.0, 1.0, 1.0]), score=0.9),
            Proposal(box=np.array([9.0, 9.0, 9.0, 1.0, 1.0, 1.0]), score=0.1),
        ),
        annotations=(
            Annotation(
                id="s",
                task="sqa3d",
                text="What is behind me?",
                situation="I sit.",
                answers=("lamp",),
                **common,
            ),
            Annotation(id="q", task="scanqa", text="What is it?", answers=("a lamp", "lamp"), **common),
            Annotation(id="c", task="scan2cap", answers=("a small lamp",), object_ids=(3,), **common),
            Annotation(id="r", task="scanrefer", text="the left table", object_ids=(1,), **common),
            Annotation(id="m", task="multi3drefer", text="the sofas", object_ids=(), **common),
        ),
    )


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level tokenizer of 300 entries."""
    return build_tokenizer(WORDS, 300)


@pytest.fixture
def make_pack() -> Callable[..., ScenePack]:
    """A function that makes a pack of so many views with the given conversations; grid 2x3, encoder grid 4x6."""

    def make(views: int, *conversations: Conversation, name: str = "room", proposals: int = 3, **targets) -> ScenePack:
        generator = torch.Generator().manual_seed(views)
        return ScenePack(
            scene_id=name,
            frame_names=tuple(f"{name}/{i}" for i in range(views)),
            images=torch.randint(0, 256, (views, 3, 8, 12), generator=generator, dtype=torch.uint8),
            coordinates=torch.rand(views, 2, 3, 3, generator=generator),
            coordinates_valid=torch.ones(views, 2, 3, dtype=torch.bool),
            cameras=torch.eye(4).repeat(views, 1, 1),
            intrinsics=torch.eye(3).repeat(views, 1, 1),
            proposals=SceneProposals(
                boxes=torch.rand(proposals, 6, generator=generator),
                cells=torch.rand(proposals, views, 4, 6, generator=generator) < 0.3,
            ),
            conversations=conversations,
            **targets,
        )

    return make
