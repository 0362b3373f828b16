"""The public functions: a seed becomes a `Scene`, its instance maps, or its mesh."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt16

from stereopsis.scenes.rooms.config import RoomConfig
from stereopsis.scenes.rooms.detector import detect
from stereopsis.scenes.rooms.layout import Layout, make_layout
from stereopsis.scenes.rooms.render import Images, RoomMesh, build_mesh, render_images
from stereopsis.scenes.rooms.walk import Walk, make_walk
from stereopsis.scenes.scene import Frame, Scene, SceneObject

GENERATOR_VERSION = 1
DEFAULT = RoomConfig()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RenderedRoom:
    """A room with what only its renderer knows.

    Attributes:
        scene: what every reader returns.
        instances: [views, height, width] object id at each pixel; 0 for floor, walls and ceiling. Ids above
            ``len(scene.objects)`` belong to ``unlisted``.
        unlisted: objects that stand in the room but that no view shows well enough to speak of.
    """

    scene: Scene
    instances: UInt16[np.ndarray, "views height width"]
    unlisted: tuple[SceneObject, ...]


def _held(array: np.ndarray) -> np.ndarray:
    """Loader of a frame whose pixels are in memory already."""
    return array


def _describe(layout: Layout, order: Sequence[int], counts: np.ndarray, listed: int) -> list[SceneObject]:
    """Scene objects in ``order`` (layout indices); ``counts`` is [views, 1 + layout objects] pixels."""
    new_id = {index: position + 1 for position, index in enumerate(order)}
    described = []
    for index in order:
        item = layout.objects[index]
        below = None if item.support is None else new_id[item.support]
        attributes = {
            "category": item.category.name,
            "colour": item.colour,
            "material": item.material,
            "size": item.size,
            "supported_by": below if below is not None and below <= listed else None,
            "yaw": item.yaw,
        }
        described.append(
            SceneObject(
                id=new_id[index],
                label=item.category.name,
                box=np.concatenate([(item.low + item.high) / 2, item.high - item.low]),
                attributes=attributes,
                visible_pixels=tuple(int(c) for c in counts[:, index + 1]),
            )
        )
    return described


def _frames(images: Images, walk: Walk) -> tuple[Frame, ...]:
    return tuple(
        Frame(
            name=f"view-{index:03d}",
            T_world_camera=pose,
            intrinsics=walk.intrinsics,
            load_colour=functools.partial(_held, images.colour[index]),
            load_depth=functools.partial(_held, images.depth[index]),
        )
        for index, pose in enumerate(walk.poses)
    )


def render_room(seed: int, config: RoomConfig = DEFAULT) -> RenderedRoom:
    """Make a room and keep its instance maps.

    Args:
        seed: any non-negative integer; the same seed and configuration give identical bytes.
        config: content and camera settings.

    Raises:
        SceneError: no room satisfies the configuration.
        MissingExtraError: embreex is not installed.
    """
    layout = make_layout(seed, config)
    walk = make_walk(layout, config)
    mesh, paint = build_mesh(layout)
    images = render_images(layout, mesh, paint, walk)
    total = len(layout.objects)
    counts = np.stack([np.bincount(view.ravel(), minlength=total + 1) for view in images.instances])
    seen = counts[:, 1:].max(axis=0) >= config.min_visible_pixels
    order = [*np.flatnonzero(seen).tolist(), *np.flatnonzero(~seen).tolist()]
    listed = int(seen.sum())
    described = _describe(layout, order, counts, listed)
    renumber = np.zeros(total + 1, dtype=np.uint16)
    renumber[1 + np.array(order, dtype=np.int64)] = np.arange(1, total + 1)
    objects = tuple(described[:listed])
    scene = Scene(
        id=f"room-{seed:08d}",
        frames=_frames(images, walk),
        objects=objects,
        proposals=detect(seed, objects, layout.size),
        provenance={
            "format": "rooms",
            "generator_version": GENERATOR_VERSION,
            "seed": seed,
            "room_size": layout.size,
            "config": dataclasses.asdict(config),
        },
    )
    return RenderedRoom(scene=scene, instances=renumber[images.instances], unlisted=tuple(described[listed:]))


def make_room(seed: int, config: RoomConfig = DEFAULT) -> Scene:
    """A seeded indoor room: posed RGB-D views, objects with attributes, proposals. See `render_room`."""
    return render_room(seed, config).scene


def make_room_mesh(seed: int, config: RoomConfig = DEFAULT) -> RoomMesh:
    """The room's exact triangles, for checks against what the views show.

    `RoomMesh.objects` counts in layout order and so differs from the scene's ids, which depend on visibility.
    """
    return build_mesh(make_layout(seed, config))[0]
