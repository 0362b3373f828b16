"""An interactive figure of a scene: its coloured points, cameras, and boxes. The page's script draws it."""

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import MissingExtraError
from stereopsis.geometry.birdseye import ceiling_height
from stereopsis.geometry.boxes import box_corners, box_edges
from stereopsis.geometry.camera import transform
from stereopsis.report.style import TARGET_HEX, arm_hex
from stereopsis.scenes.alignment import scene_points
from stereopsis.scenes.scene import Scene

MOST_POINTS = 15_000
_FRUSTUM = 0.22  # metres from a drawn camera's centre to its image plane


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure3D:
    """Plain data for the page's script.

    Attributes:
        points: base64 of int16 [n, 3], millimetres in the aligned frame relative to ``origin``.
        colours: base64 of uint8 [n, 3] RGB.
        count: number of points.
        origin: [3] metres.
        boxes: name, colour, line width, and polylines [x, y, z] with None between edges.
        cameras: polylines of the cameras' frustums, and their centres with names.
    """

    points: str
    colours: str
    count: int
    origin: tuple[float, float, float]
    boxes: tuple[dict[str, Any], ...]
    cameras: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """What JSON can hold."""
        return dataclasses.asdict(self)


def plotly_script() -> str:
    """plotly.js, minified; only the whole library comes with the package.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("plotly", "report", "A report with a 3D figure") from error
    return get_plotlyjs()


def scene_figure(
    scene: Scene,
    targets: Float[np.ndarray, "targets 6"],
    choices: Sequence[tuple[int, str, Float[np.ndarray, "_ 6"]]],
) -> Figure3D | None:
    """The scene's points below the ceiling, at most `MOST_POINTS`, with boxes and cameras.

    Args:
        scene: with depth.
        targets: true boxes, aligned frame, metres.
        choices: arm's index, label and chosen boxes.

    Returns:
        None where the scene has no depth.

    Raises:
        FrameError: a frame is damaged.
    """
    if all(frame.load_depth is None for frame in scene.frames):
        return None
    cloud = scene_points(scene, max_frames=64, stride=max(1, scene.frames[0].intrinsics.width // 160))
    points, colours = cloud.points.astype(np.float64), cloud.colours
    ceiling = ceiling_height(points)
    if ceiling is not None:
        below = points[:, 2] < ceiling - 0.1
        points, colours = points[below], colours[below]
    if len(points) > MOST_POINTS:
        kept = np.random.default_rng(0).choice(len(points), MOST_POINTS, replace=False)
        points, colours = points[kept], colours[kept]
    if not len(points):
        return None
    origin = np.round((points.min(axis=0) + points.max(axis=0)) / 2, 3)
    millimetres = np.clip(np.rint((points - origin) * 1000.0), -32768, 32767).astype("<i2")
    widths = range(4 + 3 * len(choices), 4, -3)
    boxes = [
        _polyline(label, arm_hex(arm), width, chosen)
        for (arm, label, chosen), width in zip(choices, widths, strict=True)
    ]
    if len(targets):
        boxes.append(_polyline("target", TARGET_HEX, 4, targets))
    return Figure3D(
        points=_base64(millimetres),
        colours=_base64(colours.astype(np.uint8)),
        count=len(points),
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        boxes=tuple(boxes),
        cameras=_cameras(scene),
    )


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _polyline(name: str, colour: str, width: int, boxes: Float[np.ndarray, "boxes 6"]) -> dict[str, Any]:
    ends = box_corners(boxes)[:, box_edges()].reshape(-1, 2, 3)
    return {"name": name, "colour": colour, "width": width, "line": _broken(ends)}


def _broken(segments: Float[np.ndarray, "segments 2 3"]) -> list[list[float | None]]:
    """Three coordinate lists in which None ends each segment."""
    axes: list[list[float | None]] = [[], [], []]
    for start, end in np.round(segments, 3).tolist():
        for axis in range(3):
            axes[axis] += [start[axis], end[axis], None]
    return axes


def _cameras(scene: Scene, most: int = 64) -> dict[str, Any]:
    indices = np.unique(np.linspace(0, len(scene.frames) - 1, min(most, len(scene.frames))).astype(int))
    segments, centres, names = [], [], []
    for index in indices:
        frame = scene.frames[index]
        pose, camera = scene.T_aligned_camera(frame), frame.intrinsics
        half = np.array([camera.width / camera.fx, camera.height / camera.fy]) / 2 * _FRUSTUM
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        corners = transform(pose, np.concatenate([signs * half, np.full((4, 1), _FRUSTUM)], axis=1))
        centre = pose[:3, 3]
        segments += [np.stack([centre, corner]) for corner in corners]
        segments += [np.stack([corners[i], corners[(i + 1) % 4]]) for i in range(4)]
        centres.append(np.round(centre, 3).tolist())
        names.append(frame.name)
    return {"line": _broken(np.stack(segments)), "centres": centres, "names": names}
