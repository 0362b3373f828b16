"""Where a photographer can walk in a room whose floor need not be a rectangle."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from stereopsis.errors import SceneError
from stereopsis.geometry.raycast import cast, embree_scene
from stereopsis.scenes.readers.front3d.assemble import AssembledRoom
from stereopsis.scenes.walk import FloorPlan, free_positions

_CELL = 0.1  # side of the cells that the floor's outline is measured in, metres
_TALL = 1.2  # what is higher blocks the view, metres
_FLAT, _HUNG = 0.08, 1.8  # carpets and lamps: lower than the first, or beginning above the second, metres
_CRAMPED_BODY, _CRAMPED_WALL = 0.1, 0.15  # distances kept in bathrooms, metres


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RoomPlan:
    """A floor plan, and where its corner lies.

    Attributes:
        plan: in its own frame, which begins at the corner.
        corner: [3] world position of the plan's origin, metres.
    """

    plan: FloorPlan
    corner: Float[np.ndarray, "3"]


def plan_floor(room: AssembledRoom) -> RoomPlan:
    """The floor's bounding rectangle, with everything outside the floor's outline and all furniture as obstacles.

    Where furniture leaves no place, the distances kept from it shrink; at last only tall furniture is an
    obstacle, and the camera may hang above the rest.

    Raises:
        SceneError: there is no place even so.
        MissingExtraError: embreex is not installed.
    """
    ground = room.floor if len(room.floor) else room.mesh.triangles
    low = ground.min(axis=(0, 1))
    high = ground.max(axis=(0, 1))
    top = float(room.mesh.triangles[..., 2].max())
    size = (float(high[0] - low[0]), float(high[1] - low[1]), max(top, 2.0))
    corner = np.array([low[0], low[1], 0.0])
    outside = _outside(room.floor - corner, size) if len(room.floor) else np.zeros((0, 4))
    boxes = np.array([item.box for item in room.objects]).reshape(-1, 6)
    under, over = boxes[:, 2] - boxes[:, 5] / 2, boxes[:, 2] + boxes[:, 5] / 2
    footprints = np.column_stack([boxes[:, :2] - boxes[:, 3:5] / 2, boxes[:, :2] + boxes[:, 3:5] / 2])
    footprints -= np.tile(corner[:2], 2)
    in_the_way = footprints[(under < _HUNG) & (over > _FLAT)]
    tall = np.concatenate([outside, footprints[(under < _HUNG) & (over > _TALL)]])
    plan = FloorPlan(
        boxes=np.concatenate([outside, in_the_way]), tall=tall, targets=boxes[:, :2] - corner[:2], size=size
    )
    cramped = dataclasses.replace(plan, body_radius=_CRAMPED_BODY, wall_distance=_CRAMPED_WALL)
    for candidate in (plan, cramped, dataclasses.replace(cramped, boxes=tall)):
        if len(free_positions(candidate)):
            return RoomPlan(plan=candidate, corner=corner)
    raise SceneError(
        f"a floor of {size[0]:.2f} x {size[1]:.2f} m leaves no place for a camera; expected at least half a metre "
        "of free floor; choose another room"
    )


def _outside(floor: Float[np.ndarray, "triangles 3 3"], size: tuple[float, float, float]) -> Float[np.ndarray, "_ 4"]:
    """Rectangles that cover what of the bounding rectangle is not floor."""
    counts = [max(1, int(np.ceil(side / _CELL - 1e-6))) for side in size[:2]]
    step = [side / count for side, count in zip(size, counts, strict=False)]
    x, y = ((np.arange(count) + 0.5) * width for count, width in zip(counts, step, strict=True))
    centres = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    origins = np.column_stack([centres, np.full(len(centres), floor[..., 2].max() + 1.0)]).astype(np.float32)
    down = np.tile(np.array([0, 0, -1], dtype=np.float32), (len(centres), 1))
    triangle, _ = cast(embree_scene(floor), origins, down)
    cells = rectangles((triangle < 0).reshape(counts[1], counts[0]))
    return cells * np.array([step[0], step[1], step[0], step[1]])


def rectangles(mask: Bool[np.ndarray, "rows columns"]) -> Float[np.ndarray, "_ 4"]:
    """Rectangles x0 y0 x1 y1 (in cells) that together cover the True cells exactly, without overlap."""
    done: list[tuple[int, int, int, int]] = []
    growing: dict[tuple[int, int], int] = {}
    for row in range(len(mask) + 1):
        steps = np.diff(mask[row].astype(np.int8), prepend=0, append=0) if row < len(mask) else np.zeros(1)
        runs = set(zip(np.flatnonzero(steps == 1).tolist(), np.flatnonzero(steps == -1).tolist(), strict=True))
        for run in [run for run in growing if run not in runs]:
            done.append((run[0], growing.pop(run), run[1], row))
        for run in runs:
            growing.setdefault(run, row)
    return np.array(sorted(done), dtype=np.float64).reshape(-1, 4)
