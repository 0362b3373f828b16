"""What a page and a program are told of a room."""

from typing import Any

import numpy as np

from stereopsis.benchmarks import benchmarks_of
from stereopsis.scenes.scene import Scene
from stereopsis.serve.rooms import OpenRoom, RoomEntry

_GENERIC = ("how many chairs are in the room?", "is there a table in the room?", "what colour is the chair?")
_MOST_SUGGESTIONS = 6


def room_facts(entry: RoomEntry) -> dict[str, Any]:
    """Verdict, scale, views with cameras, candidates, extent, the view from above, and what one may ask."""
    room = entry.opened()
    scene = room.scene
    return {
        "id": entry.id,
        "title": entry.title,
        "verdict": {
            "usable": room.verdict.usable,
            "words": room.verdict.words,
            "notes": list(room.verdict.notes),
        },
        "facts": _line(room),
        "scale": {"known": room.survey.scale.known, "words": room.survey.scale.words},
        "views": [_view(scene, number) for number in range(len(scene.frames))],
        "candidates": room.boxes,
        "extent": _extent(room),
        "ceiling": room.cloud.ceiling,
        "points": len(room.cloud.points),
        "spacing": 1.6 * room.cloud.spacing,
        "above": _above(scene),
        "suggestions": suggestions(entry),
    }


def _view(scene: Scene, number: int) -> dict[str, Any]:
    frame = scene.frames[number]
    camera = frame.intrinsics
    return {
        "name": frame.name,
        "pose": np.round(scene.T_aligned_camera(frame), 5).tolist(),
        "camera": [round(float(v), 3) for v in (camera.fx, camera.fy, camera.cx, camera.cy)],
        "size": [camera.width, camera.height],
        "depth": frame.load_depth is not None,
    }


def _extent(room: OpenRoom) -> dict[str, Any] | None:
    points = room.cloud.points
    if not len(points):
        return None
    # Single points outside of windows are no part of the room.
    low, high = (np.percentile(points, share, axis=0) for share in (0.5, 99.5))
    return {"low": np.round(low.astype(np.float64), 3).tolist(), "high": np.round(high.astype(np.float64), 3).tolist()}


def _line(room: OpenRoom) -> str:
    """Frames, extent, alignment: one line."""
    scene, extent = room.scene, _extent(room)
    parts = [f"{len(scene.frames)} views"]
    if extent is not None:
        sides = [high - low for low, high in zip(extent["low"], extent["high"], strict=True)]
        unit = " m" if room.survey.scale.known else " units (scale unknown)"
        parts.append(" x ".join(f"{side:.1f}" for side in sides) + unit)
    alignment = scene.provenance.get("alignment")
    if isinstance(alignment, dict) and alignment.get("method") == "estimated":
        parts.append(f"turned upright (confidence {float(alignment.get('confidence', 0)):.0%})")
    parts.append(f"{len(room.boxes)} candidate boxes")
    return " · ".join(parts)


def _above(scene: Scene) -> dict[str, Any] | None:
    view = scene.birdseye
    if view is None:
        return None
    return {
        "origin": [float(v) for v in view.origin],
        "metres_per_pixel": float(view.metres_per_pixel),
        "size": int(view.image.shape[0]),
    }


def suggestions(entry: RoomEntry) -> list[dict[str, str]]:
    """What one may ask: what somebody has asked of this scene in training's words, or what makes sense in any room."""
    if entry.suggestions:
        return [_suggested(text) for text in entry.suggestions]
    room = entry.opened()
    said = [a for a in room.scene.annotations if not a.situation]
    asked = [each.name for each in benchmarks_of("text")]
    found = [each.name for each in benchmarks_of("pointing") if each.one_target]
    texts: dict[str, dict[str, str]] = {}
    for kind, tasks in (("ask", asked), ("find", found)):
        of_type: dict[str, str] = {}
        for annotation in said:
            if annotation.task in tasks:
                of_type.setdefault(annotation.type, annotation.text)
        for text in list(of_type.values())[: _MOST_SUGGESTIONS // 2]:
            texts[text] = {"kind": kind, "text": text}
    return list(texts.values()) or [_suggested(text) for text in _GENERIC]


def _suggested(text: str) -> dict[str, str]:
    return {"kind": "ask" if text.rstrip().endswith("?") else "find", "text": text}
