"""What all faces of a server do: ask the engine, and say the answer in plain values."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stereopsis.geometry.boxes import box_corners
from stereopsis.geometry.camera import project
from stereopsis.serve.engine import Engine, Question, Reply
from stereopsis.serve.failures import CannotError, RequestError
from stereopsis.serve.rooms import OpenRoom

MARGIN = 0.05
"""Metres around a candidate box within which a click still means it."""
AROUND = 0.4
"""Side of the box around a point that no candidate holds, metres."""


def asked(reply: Reply) -> dict[str, Any]:
    """An answer in words."""
    return {"answer": reply.value.text, "tokens": reply.value.tokens, **_how(reply)}


def found(reply: Reply, room: OpenRoom, most: int) -> dict[str, Any]:
    """What was found, the runners-up, and in which views it shows best."""
    value = reply.value
    labels = [each["label"] for each in room.boxes]
    ranked = [
        {"index": c.index, "box": list(c.box), "score": round(c.score, 4), "label": labels[c.index]}
        for c in value.ranked(most)
    ]
    return {
        "found": not value.none,
        "box": value.box,
        "none_score": round(value.zero_cosine, 4),
        "ranked": ranked,
        "seen_in": [] if value.none else seen_in(room, value.box),
        **_how(reply),
    }


def _how(reply: Reply) -> dict[str, Any]:
    return {
        "views": list(reply.views),
        "together": reply.together,
        "seconds": round(reply.seconds, 4),
        "waited": round(reply.waited, 4),
    }


def box_at(room: OpenRoom, point: Sequence[float]) -> dict[str, Any]:
    """The smallest candidate box around a point, or a box around the point alone."""
    inside = []
    for each in room.boxes:
        box = np.array(each["box"])
        if (np.abs(np.asarray(point) - box[:3]) <= box[3:] / 2 + MARGIN).all():
            inside.append((float(box[3:].prod()), each))
    if inside:
        return min(inside, key=lambda pair: pair[0])[1]
    around = [*(round(float(v), 3) for v in point), AROUND, AROUND, AROUND]
    return {"index": None, "box": around, "label": "", "score": None}


def described(room: OpenRoom, box: Any, point: Any, most: int = 48) -> tuple[dict[str, Any], Question]:
    """Which box a description is about, and the question."""
    own: dict[str, Any] = {"index": None, "box": box, "label": "", "score": None}
    thing = box_at(room, point) if box is None else own
    return thing, Question(kind="describe", box=tuple(float(v) for v in thing["box"]), max_new_tokens=most)


def seen_in(room: OpenRoom, box: Any, most: int = 6) -> list[int]:
    """The views that show a box best: by the share of the image that its visible corners and centre span.

    A view counts where the surface at the box's centre is not far nearer than the box: nothing stands before it.
    """
    scored = []
    centre = np.asarray(box[:3], dtype=np.float64)
    around = np.concatenate([centre[None], box_corners(np.asarray(box, dtype=np.float64))])
    for number, frame in enumerate(room.scene.frames):
        camera = frame.intrinsics
        seen = project(around, camera, room.scene.T_aligned_camera(frame))
        ahead = seen.depth > 0.1
        if not ahead[0]:
            continue
        u, v = seen.pixels[0]
        if not (0 <= u < camera.width and 0 <= v < camera.height):
            continue
        corners = seen.pixels[ahead].clip([0, 0], [camera.width, camera.height])
        area = float(np.prod(corners.max(0) - corners.min(0))) / (camera.width * camera.height)
        scored.append((area, number))
    best = [number for _, number in sorted(scored, reverse=True)]
    clear = [number for number in best[: 4 * most] if _unhidden(room, number, centre, float(max(box[3:])))]
    return (clear or best)[:most]


def _unhidden(room: OpenRoom, number: int, centre: np.ndarray, reach: float) -> bool:
    frame = room.scene.frames[number]
    depth = frame.depth()
    if depth is None:
        return True
    camera = frame.depth_intrinsics or frame.intrinsics
    seen = project(centre, camera, room.scene.T_aligned_camera(frame))
    column, row = (int(x) for x in np.floor(seen.pixels))
    if not (0 <= column < camera.width and 0 <= row < camera.height):
        return False
    nearest = float(depth[row, column])
    return nearest == 0 or nearest > float(seen.depth) - reach / 2 - 0.15


def point_at(room: OpenRoom, view: int, x: float, y: float) -> list[float]:
    """The aligned-frame point that a pixel shows.

    Args:
        room: which.
        view: number of the view.
        x: share of the width, 0 to 1.
        y: share of the height.

    Raises:
        UnknownRoomError: there is no such view.
        RequestError: nothing was measured there.
    """
    frame = room.frame(view)
    depth = frame.depth()
    if depth is None:
        raise RequestError(f"view {view} has no depth: a pixel of it has no place in the room")
    camera = frame.intrinsics
    target = frame.depth_intrinsics or camera.resized(depth.shape[1], depth.shape[0])
    ray_x, ray_y = (x * camera.width - camera.cx) / camera.fx, (y * camera.height - camera.cy) / camera.fy
    column, row = int(ray_x * target.fx + target.cx), int(ray_y * target.fy + target.cy)
    around = depth[max(0, row - 3) : row + 4, max(0, column - 3) : column + 4]
    if not (0 <= column < depth.shape[1] and 0 <= row < depth.shape[0]) or not (around > 0).any():
        raise RequestError("nothing was measured at this pixel; take one beside it")
    z = float(depth[row, column]) or float(np.median(around[around > 0]))
    pose = room.scene.T_aligned_camera(frame)
    place = pose[:3, :3] @ np.array([ray_x * z, ray_y * z, z]) + pose[:3, 3]
    return [round(float(v), 4) for v in place]


def thing_of(engine: Engine, room_id: str, thing: Any) -> list[float]:
    """A point or a box as it is; words are looked for.

    Raises:
        CannotError: the model says that there is no such thing.
    """
    if not isinstance(thing, str):
        return list(thing)
    reply = engine.ask(room_id, Question(kind="find", text=thing), timeout=120.0)
    if reply.value.none:
        raise CannotError(f"the model finds no '{thing[:80]}' in room '{room_id}', so there is nothing to measure")
    box: list[float] = reply.value.box
    return box


def measured(engine: Engine, room_id: str, a: Any, b: Any = None) -> dict[str, Any]:
    """A measurement in plain values (see `stereopsis.scenes.measuring`), with the things as they were taken."""
    room = engine.rooms[room_id].opened()
    things = [thing_of(engine, room_id, each) for each in (a, b) if each is not None]
    content = room.survey.measure(*things).plain()
    words = [each if isinstance(each, str) else None for each in (a, b) if each is not None]
    for thing, word in zip(content["things"], words, strict=True):
        thing["words"] = word
    return content


def similar(reply: Reply) -> dict[str, Any]:
    """How like one place every cell of the views looks to the model."""
    value = reply.value
    heat = np.round(value.cosines.astype(np.float64), 3).tolist()
    return {"cell": list(value.cell), "similarity": heat, **_how(reply)}
