"""Small scenes and captures that the tests of reading and writing share."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stereopsis.annotations import Annotation
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.scene import Frame, Proposal, Scene, SceneObject

KITCHEN = Path(__file__).resolve().parents[3] / "shared" / "data" / "seven_scenes_redkitchen"


def turned(degrees: float, x: float = 0.0) -> np.ndarray:
    """A pose: turned about the camera's y axis, then moved along the world's x axis."""
    angle = np.radians(degrees)
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    pose[0, 3] = x
    return pose


def _noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _millimetres(seed: int, height: int, width: int) -> np.ndarray:
    """Depth that millimetres hold exactly, about a tenth of it invalid."""
    generator = np.random.default_rng(seed)
    units = generator.integers(300, 9000, (height, width)) * (generator.random((height, width)) > 0.1)
    return units.astype(np.float32) / np.float32(1000)


@pytest.fixture
def make_scene() -> Callable[..., Scene]:
    """A function that makes a scene of random pixels with objects, proposals and annotations."""

    def make(frames: int = 3, width: int = 24, height: int = 16, **changes: object) -> Scene:
        camera = Intrinsics(fx=20.5, fy=21.25, cx=width / 2, cy=height / 2, width=width, height=height)
        views = tuple(
            Frame(
                name=f"view_{index:03d}",
                T_world_camera=turned(17.3 * index, x=0.1 * index),
                intrinsics=camera,
                load_colour=functools.partial(_noise, index, height, width),
                load_depth=functools.partial(_millimetres, index, height, width),
            )
            for index in range(frames)
        )
        lamp = SceneObject(
            id=7,
            label="lamp",
            box=np.array([0.1, 0.2, 1 / 3, 0.4, 0.5, 0.6]),
            attributes={"colour": "red", "supported_by": 3},
            visible_pixels=tuple(range(10, 10 + frames)),
        )
        table = SceneObject(id=3, label="table", box=np.array([0.1, 0.2, 0.0, 1.0, 1.0, 0.7]))
        question = Annotation(
            id="q1",
            task="sqa3d",
            scene_id="little",
            type="what",
            text="What is on the table?",
            situation="I am facing the table.",
            position=(0.5, -0.25, 0.0),
            yaw=1.25,
            answers=("lamp", "a lamp"),
            object_ids=(7,),
        )
        pose = turned(30.0, x=2.0)
        scene = Scene(
            id="little",
            frames=views,
            T_aligned_world=pose,
            objects=(lamp, table),
            proposals=(Proposal(box=lamp.box + 0.01, score=0.75, label="lamp"),),
            annotations=(question,),
            provenance={"format": "test", "seed": 5, "numbers": [1, 2.5]},
        )
        return scene.replace(**changes)

    return make


@pytest.fixture
def make_capture(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a folder in the 7-Scenes layout."""

    def make(frames: int = 10, width: int = 24, height: int = 16, name: str = "capture") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        np.savetxt(folder / "camera-intrinsics.txt", [[20.0, 0, width / 2], [0, 20.0, height / 2], [0, 0, 1]])
        for index in range(frames):
            stem = folder / f"frame-{index:06d}"
            texture = _noise(index, height, width) // 8 + 40  # mean 55.5
            Image.fromarray(texture).save(f"{stem}.color.jpg", quality=95)
            units = np.rint(_millimetres(index, height, width) * 1000).astype(np.uint16)
            Image.fromarray(units).save(f"{stem}.depth.png")
            np.savetxt(f"{stem}.pose.txt", turned(5.0 * index, x=0.1 * index))
        return folder

    return make


@pytest.fixture
def kitchen() -> Path:
    """The real capture, where it is present."""
    if not KITCHEN.is_dir():
        pytest.skip("the real kitchen capture is not present")
    return KITCHEN
