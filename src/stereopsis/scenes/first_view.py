"""The frame that pictures alone can know: turned by quarter turns and moved so that the first view is where it begins.

Boxes, questions and points are given in a scene's aligned frame. Which way that frame points, and which corner is its
origin, no picture tells: a system without poses cannot be asked for coordinates in it. Here the first view says both.
Walls stay along the axes, so that boxes stay boxes; by how much the first view is turned against the walls (up to 45
degrees) it can see.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.annotations import Annotation
from stereopsis.errors import SceneError
from stereopsis.geometry.birdseye import BirdsEyeView
from stereopsis.scenes.scene import Scene, SceneObject


def from_first_view(scene: Scene) -> Scene:
    """The same scene in the frame of its first view.

    The first camera stands at x = y = 0 and looks along +y, within 45 degrees; z stays as it is. Frames, boxes,
    agents' places and the view from above go along.

    Raises:
        SceneError: the scene has no frames.
    """
    if not scene.frames:
        raise SceneError(f"scene '{scene.id}' has no frames, so that there is no first view to start from")
    camera = scene.T_aligned_camera(scene.frames[0])
    quarters = quarters_to_ahead(camera)
    T = quarter_turn(quarters)
    T[:2, 3] = -(T[:2, :2] @ camera[:2, 3])
    return scene.replace(
        T_aligned_world=T @ scene.T_aligned_world,
        objects=tuple(_moved_object(thing, T, quarters) for thing in scene.objects),
        proposals=tuple(dataclasses.replace(p, box=moved_box(p.box, T)) for p in scene.proposals),
        annotations=tuple(_moved_annotation(a, T, quarters) for a in scene.annotations),
        birdseye=None if scene.birdseye is None else _moved_picture(scene.birdseye, T, quarters),
        provenance={**scene.provenance, "first_view": {"quarters": quarters, "T": T.tolist()}},
    )


def quarters_to_ahead(camera: Float[np.ndarray, "4 4"]) -> int:
    """How many quarter turns, counter-clockwise seen from above, bring a camera's view nearest to +y: 0 to 3.

    A camera that looks straight up or down goes by the way its picture's upper side points.
    """
    ahead = camera[:2, 2] if np.hypot(*camera[:2, 2]) > 1e-6 else -camera[:2, 1] * np.sign(-camera[2, 2])
    return round((math.pi / 2 - math.atan2(ahead[1], ahead[0])) / (math.pi / 2)) % 4


def quarter_turn(quarters: int) -> Float[np.ndarray, "4 4"]:
    """Exact rotation about z by quarter turns, counter-clockwise seen from above."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters % 4]
    T = np.eye(4)
    T[:2, :2] = [[cos, -sin], [sin, cos]]
    return T


def moved_box(box: Float[np.ndarray, "6"], T: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "6"]:
    """A box parallel to the axes after quarter turns and a shift."""
    return np.concatenate([T[:3, :3] @ box[:3] + T[:3, 3], np.abs(T[:3, :3]) @ box[3:]])


def _moved_object(thing: SceneObject, T: Float[np.ndarray, "4 4"], quarters: int) -> SceneObject:
    attributes = dict(thing.attributes)
    if attributes.get("yaw") is not None:
        attributes["yaw"] = _turned(float(attributes["yaw"]), quarters)
    return dataclasses.replace(thing, box=moved_box(thing.box, T), attributes=attributes)


def _moved_annotation(annotation: Annotation, T: Float[np.ndarray, "4 4"], quarters: int) -> Annotation:
    if annotation.position is None:
        return annotation
    x, y, z = (float(v) for v in T[:3, :3] @ np.array(annotation.position) + T[:3, 3])
    yaw = None if annotation.yaw is None else _turned(annotation.yaw, quarters)
    return dataclasses.replace(annotation, position=(x, y, z), yaw=yaw)


def _moved_picture(seen: BirdsEyeView, T: Float[np.ndarray, "4 4"], quarters: int) -> BirdsEyeView:
    half = len(seen.void) * seen.metres_per_pixel / 2
    x, y = T[:2, :2] @ np.array([seen.origin[0] + half, seen.origin[1] - half]) + T[:2, 3]

    def turned(picture: Any) -> Any:
        return None if picture is None else np.ascontiguousarray(np.rot90(picture, quarters))

    return dataclasses.replace(
        seen,
        origin=(float(x - half), float(y + half)),
        image=turned(seen.image),
        void=turned(seen.void),
        height=turned(seen.height),
        labels=turned(seen.labels),
        filled=turned(seen.filled),
    )


def _turned(yaw: float, quarters: int) -> float:
    return (yaw + quarters * math.pi / 2 + math.pi) % (2 * math.pi) - math.pi
