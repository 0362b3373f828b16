"""How many metres a COLMAP model's unit is, measured where depth images in metres and the model's points meet.

COLMAP cannot know the size of what it sees: a model from images alone has an arbitrary unit. Where a depth sensor
looked at the same points, the ratio of its distances to the model's is that unit.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import project
from stereopsis.scenes.readers.capture_files import read_rows
from stereopsis.scenes.scene import Frame

MAX_FRAMES = 12
MIN_POINTS = 20
MAX_SPREAD = 0.2
METRIC_WITHIN = 0.02
"""A unit this near to one metre is taken as one metre: the model was metric, and the difference is the sensor's."""
_POINT_LINE = "POINT3D_ID X Y Z R G B ERROR TRACK[]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredUnit:
    """A model's unit.

    Attributes:
        metres: per unit; exactly 1 where the model turns out to be metric.
        measured: metres per unit, the median over the points.
        spread: of the points' ratios around it, as a share of it (1.4826 times their median absolute deviation).
        points: how many were compared.
    """

    metres: float
    measured: float
    spread: float
    points: int

    def __str__(self) -> str:
        return (
            f"{self.metres:g} metres per unit of the model: depth images over distances of its points give "
            f"{self.measured:.4g} (spread {self.spread:.1%}, {self.points} points)"
        )


def measure_unit(frames: Sequence[Frame], observations: Mapping[str, str], points_file: Path) -> MeasuredUnit | None:
    """Compare depth images with the distances of the model's points that were seen there.

    Args:
        frames: poses in the model's unit, depth in metres; up to 12 of those with observations are used, evenly spread.
        observations: {frame name: the second line of its image in images.txt: X Y POINT3D_ID and so on, pixels}.
        points_file: points3D.txt.

    Returns:
        None where there is no such file, or fewer than 20 points have a measured depth.

    Raises:
        SceneError: the file or a line is unreadable, or the two disagree at every scale.
    """
    seen = [frame for frame in frames if observations.get(frame.name) and frame.load_depth is not None]
    if not seen or not points_file.is_file():
        return None
    points = _read_points(points_file)
    chosen = sorted({round(index) for index in np.linspace(0, len(seen) - 1, MAX_FRAMES)})
    found = [_ratios(seen[index], observations[seen[index].name], points) for index in chosen]
    ratios = np.concatenate(found)
    if len(ratios) < MIN_POINTS:
        return None
    measured = float(np.median(ratios))
    spread = float(1.4826 * np.median(np.abs(ratios - measured)) / measured)
    if spread > MAX_SPREAD:
        raise SceneError(
            f"{points_file}: the depth images and the model's {len(ratios)} points disagree at every scale (ratios "
            f"scatter by {spread:.0%} around {measured:.3g} metres per unit, tolerated are {MAX_SPREAD:.0%}); expected "
            "z-depth in millimetres of the same images; check depth and model, or say metres_per_unit"
        )
    metres = 1.0 if abs(measured - 1.0) <= METRIC_WITHIN else measured
    return MeasuredUnit(metres=metres, measured=measured, spread=spread, points=len(ratios))


def _read_points(file: Path) -> dict[int, Float[np.ndarray, "3"]]:
    points = {}
    for row in read_rows(file, "points", expected=_POINT_LINE):
        try:
            number, x, y, z = row.text.split(maxsplit=4)[:4]
            points[int(number)] = np.array([float(x), float(y), float(z)])
        except ValueError as error:
            raise row.error(f"found '{row.text[:60]}'") from error
    return points


def _ratios(frame: Frame, line: str, points: Mapping[int, np.ndarray]) -> Float[np.ndarray, "n"]:
    """Metres per unit at every point that the frame saw and whose depth was measured."""
    try:
        table = np.array([float(word) for word in line.split()]).reshape(-1, 3)
    except ValueError as error:
        raise SceneError(
            f"images.txt, points of frame '{frame.name}': {error}; expected X Y POINT3D_ID per point; export the model "
            "again"
        ) from error
    table = table[[number in points for number in table[:, 2]]]
    try:
        depth = frame.depth()
    except FrameError:  # its turn to be reported comes when it is used
        return np.zeros(0)
    if depth is None or not len(table):
        return np.zeros(0)
    seen = project(np.array([points[int(number)] for number in table[:, 2]]), frame.intrinsics, frame.T_world_camera)
    height, width = depth.shape
    columns = np.floor(table[:, 0] * width / frame.intrinsics.width).astype(int)
    rows = np.floor(table[:, 1] * height / frame.intrinsics.height).astype(int)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height) & (seen.depth > 0)
    measured = depth[rows[inside], columns[inside]].astype(np.float64)
    return measured[measured > 0] / seen.depth[inside][measured > 0]
