"""The photographer's walk through a procedural room."""

import dataclasses

import numpy as np
from jaxtyping import Float

from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.rooms.config import RoomConfig
from stereopsis.scenes.rooms.layout import Layout
from stereopsis.scenes.walk import FloorPlan, pinhole_intrinsics, plan_walk


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Walk:
    """The camera path.

    Attributes:
        intrinsics: of every view.
        poses: [views, 4, 4] T_world_camera, metres, OpenCV axes.
    """

    intrinsics: Intrinsics
    poses: Float[np.ndarray, "views 4 4"]


def room_intrinsics(config: RoomConfig) -> Intrinsics:
    """Intrinsics with square pixels and a central principal point."""
    return pinhole_intrinsics(config.width, config.height, config.horizontal_fov_degrees)


def _floor_plan(layout: Layout) -> FloorPlan:
    standing = [o for o in layout.objects if o.category.placement != "hung"]
    footprints = np.array([[*o.low[:2], *o.high[:2]] for o in standing]).reshape(-1, 4)
    tall = np.array([o.high[2] > 1.2 for o in standing], dtype=bool)
    targets = np.array([(o.low + o.high)[:2] / 2 for o in layout.objects]).reshape(-1, 2)
    return FloorPlan(boxes=footprints, tall=footprints[tall], targets=targets, size=layout.size)


def make_walk(layout: Layout, config: RoomConfig) -> Walk:
    """Plan the walk; see `stereopsis.scenes.walk.plan_walk`."""
    poses = plan_walk(
        np.random.default_rng([layout.seed, 0, 2]),
        _floor_plan(layout),
        views=config.views,
        horizontal_fov_degrees=config.horizontal_fov_degrees,
    )
    return Walk(intrinsics=room_intrinsics(config), poses=poses)
