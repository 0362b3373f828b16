"""From a layout and a walk to colour, depth and instance images, by ray casting with Embree."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8, UInt16

from stereopsis.geometry.raycast import cast, embree_scene, view_rays
from stereopsis.scenes.rooms import paint as paints
from stereopsis.scenes.rooms.layout import Layout
from stereopsis.scenes.rooms.paint import Paint, object_tones
from stereopsis.scenes.rooms.shading import shade
from stereopsis.scenes.rooms.shapes import Role
from stereopsis.scenes.rooms.walk import Walk

_OVERLAP = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RoomMesh:
    """Everything that a room's rays can hit.

    Attributes:
        triangles: [triangles, 3, 3] float32 corners, metres. The shell's six rectangles reach a little beyond
            the room's edges, so that no ray slips through.
        objects: [triangles] 1 + index in the layout; 0 for floor, walls and ceiling.
        colours: [triangles, 3] uint8 main colour.
    """

    triangles: Float[np.ndarray, "triangles 3 3"]
    objects: UInt16[np.ndarray, "triangles"]
    colours: UInt8[np.ndarray, "triangles 3"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Rendered views; ``instances`` holds `RoomMesh.objects` of the triangle seen."""

    colour: UInt8[np.ndarray, "views height width 3"]
    depth: Float[np.ndarray, "views height width"]
    instances: UInt16[np.ndarray, "views height width"]


_WALLS = (
    (0.80, 0.78, 0.72),
    (0.72, 0.78, 0.80),
    (0.74, 0.80, 0.72),
    (0.82, 0.74, 0.70),
    (0.76, 0.74, 0.82),
    (0.80, 0.80, 0.80),
    (0.66, 0.70, 0.74),
    (0.84, 0.80, 0.64),
)
_FLOORS = (
    (0.62, 0.50, 0.38),
    (0.50, 0.42, 0.36),
    (0.60, 0.60, 0.58),
    (0.46, 0.50, 0.54),
    (0.68, 0.62, 0.52),
    (0.42, 0.46, 0.40),
)


def _shell(size: tuple[float, float, float]) -> Float[np.ndarray, "12 3 3"]:
    """Floor, ceiling, and the walls x = 0, x = width, y = 0, y = depth; two triangles each, facing inward."""
    rectangles = []
    for axis in (2, 0, 1):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for end in (0, 1):
            corners = np.zeros((4, 3))
            corners[:, axis] = size[axis] * end
            corners[:, u] = np.array([-_OVERLAP, size[u] + _OVERLAP, size[u] + _OVERLAP, -_OVERLAP])
            corners[:, v] = np.array([-_OVERLAP, -_OVERLAP, size[v] + _OVERLAP, size[v] + _OVERLAP])
            rectangles.append(corners if end == 0 else corners[::-1])
    quads = np.stack(rectangles)
    return quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(12, 3, 3)


def build_mesh(layout: Layout) -> tuple[RoomMesh, Paint]:
    """The room's triangles and how they are painted."""
    rng = np.random.default_rng([layout.seed, 0, 3])
    wall, accent = rng.choice(len(_WALLS), 2, replace=False)
    walls = np.array(_WALLS)[[wall] * 4]
    walls[rng.integers(4)] = _WALLS[accent]
    floor = np.array(_FLOORS[rng.integers(len(_FLOORS))])
    surface_colours = np.concatenate([[floor, [0.93, 0.93, 0.91]], walls])
    floor_texture = int(rng.choice([paints.TILES, paints.PLANKS, paints.CARPET]))
    floor_period = {paints.TILES: 0.45, paints.PLANKS: 0.17, paints.CARPET: 0.3}[floor_texture]
    shell_second = np.concatenate([[floor * 0.62, [0.9] * 3], np.full((4, 3), 0.9)])

    triangles, owners = [_shell(layout.size)], [np.zeros(12, dtype=np.int64)]
    main, second = [np.repeat(surface_colours, 2, axis=0)], [np.repeat(shell_second, 2, axis=0)]
    texture = [np.repeat([floor_texture, paints.PLAIN, *[paints.WALL] * 4], 2)]
    period, roles = [np.full(12, floor_period)], [np.full(12, Role.BODY)]
    for index, item in enumerate(layout.objects, start=1):
        count = len(item.triangles)
        tones = object_tones(item.colour, item.roles)
        pattern = np.where(item.roles == Role.BODY, paints.MATERIALS.index(item.material), paints.PLAIN)
        triangles.append(item.triangles)
        owners.append(np.full(count, index))
        main.append(tones[0])
        second.append(tones[1])
        texture.append(np.where(item.roles == Role.CANVAS, paints.CANVAS, pattern))
        period.append(np.full(count, np.clip((item.high - item.low).max() / 5, 0.08, 0.24)))
        roles.append(item.roles)
    owner = np.concatenate(owners)
    paint = Paint(
        main=np.concatenate(main).astype(np.float32),
        second=np.concatenate(second).astype(np.float32),
        texture=np.concatenate(texture),
        period=np.concatenate(period).astype(np.float32),
        owner=owner,
        origin=np.array([[0.0, 0.0, 0.0], *(o.origin for o in layout.objects)], dtype=np.float32),
        quarter=np.array([0, *(o.quarter for o in layout.objects)]),
        glowing=np.concatenate(roles) == Role.GLASS,
    )
    mesh = RoomMesh(
        triangles=np.concatenate(triangles).astype(np.float32),
        objects=owner.astype(np.uint16),
        colours=(paint.main * 255).astype(np.uint8),
    )
    return mesh, paint


def camera_rays(walk: Walk) -> tuple[Float[np.ndarray, "rays 3"], Float[np.ndarray, "rays 3"]]:
    """Origins and directions of all pixels of all views, row-major; directions advance z-depth by 1."""
    return view_rays(walk.intrinsics, walk.poses)


def render_images(layout: Layout, mesh: RoomMesh, paint: Paint, walk: Walk) -> Images:
    """Render every view of the walk.

    Raises:
        MissingExtraError: embreex is not installed.
    """
    scene = embree_scene(mesh.triangles)
    origins, directions = camera_rays(walk)
    triangle, depth = cast(scene, origins, directions)
    points = (origins + directions * depth[:, None]).T.copy()
    colour = shade(layout, mesh.triangles, paint, triangle, points, directions)
    shape = (len(walk.poses), walk.intrinsics.height, walk.intrinsics.width)
    return Images(
        colour=colour.reshape(*shape, 3),
        depth=depth.reshape(shape),
        instances=np.where(triangle >= 0, mesh.objects[triangle], 0).astype(np.uint16).reshape(shape),
    )
