"""Rooms, and hand-made scenes without a single pixel."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import benchmark_names
from stereopsis.models.spatial import SpatialModel
from stereopsis.packs.build import PackConfig
from stereopsis.scenes.scene import Proposal, Scene, SceneObject
from stereopsis.training.sources import open_folder


@pytest.fixture(scope="session")
def rooms(tiny_rooms) -> list[Scene]:
    return open_folder(tiny_rooms)


@pytest.fixture(scope="session")
def config(trained: SpatialModel) -> PackConfig:
    return trained.pack_config(views=4, tasks=benchmark_names(), proposals="detector")


def _cube(x: float) -> np.ndarray:
    """The unit cube around (x, 0, 0)."""
    return np.array([x, 0.0, 0.0, 1.0, 1.0, 1.0])


def _hand_scene(name: str, annotations: list[dict[str, Any]], proposals: tuple[float, ...] = ()) -> Scene:
    """Objects 1, 2, 3: unit cubes at x = 0, 10, 20. Proposals: unit cubes at the x that are given."""
    return Scene(
        id=name,
        frames=(),
        objects=tuple(SceneObject(id=i + 1, label="cube", box=_cube(10.0 * i)) for i in range(3)),
        proposals=tuple(Proposal(box=_cube(x)) for x in proposals),
        annotations=tuple(
            Annotation(**{"id": f"{name}-{number}", "scene_id": name, "type": "t", **record})
            for number, record in enumerate(annotations)
        ),
    )


@pytest.fixture(scope="session")
def hand_scene() -> Callable[..., Scene]:
    return _hand_scene
