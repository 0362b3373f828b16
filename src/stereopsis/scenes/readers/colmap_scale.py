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
from stereopsis.scenes.readers.colmap_files import ImageEntry, read_points
from stereopsis.scenes.scene import Frame

MAX_FRAMES = 12
MIN_POINTS = 20
MAX_SPREAD = 0.2
METRIC_WITHIN = 0.02
"""A unit this near to one metre is taken as one metre: the model was metric, and the difference is the sensor's."""


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


def measure_unit(frames: Sequence[Frame], images: Mapping[str, ImageEntry], model: Path) -> MeasuredUnit | None:
    """Compare depth images with the distances of the model's points that were seen there.

    Args:
        frames: poses in the model's unit, depth in metres; up to 12 of those with observations are used, evenly spread.
        images: {frame name: its image in the model, with the points that it observes}.
        model: the folder of the model.

    Returns:
        None where there is no such file, or fewer than 20 points have a measured depth.

    Raises:
        SceneError: the file or a line is unreadable, or the two disagree at every scale.
    """
    seen = [frame for frame in frames if len(images[frame.name].points) and frame.load_depth is not None]
    points = read_points(model) if seen else None
    if points is None:
        return None
    chosen = sorted({round(index) for index in np.linspace(0, len(seen) - 1, MAX_FRAMES)})
    found = [_ratios(seen[index], images[seen[index].name], points) for index in chosen]
    ratios = np.concatenate(found)
    if len(ratios) < MIN_POINTS:
        return None
    measured = float(np.median(ratios))
    spread = float(1.4826 * np.median(np.abs(ratios - measured)) / measured)
    if spread > MAX_SPREAD:
        raise SceneError(
            f"{model}: the depth images and the model's {len(ratios)} points disagree at every scale (ratios "
            f"scatter by {spread:.0%} around {measured:.3g} metres per unit, tolerated are {MAX_SPREAD:.0%}); expected "
            "z-depth in millimetres of the same images; check depth and model, or say metres_per_unit (--pose-unit)"
        )
    metres = 1.0 if abs(measured - 1.0) <= METRIC_WITHIN else measured
    return MeasuredUnit(metres=metres, measured=measured, spread=spread, points=len(ratios))


def _ratios(frame: Frame, image: ImageEntry, points: Mapping[int, np.ndarray]) -> Float[np.ndarray, "n"]:
    """Metres per unit at every point that the frame saw and whose depth was measured."""
    numbers = [int(number) for number in image.observations()[:, 2] if number in points]
    try:
        depth = frame.depth()
    except FrameError:  # its turn to be reported comes when it is used
        return np.zeros(0)
    if depth is None or not numbers:
        return np.zeros(0)
    # Where the model puts the point, not where the image showed it: the picture may have been straightened since.
    seen = project(np.array([points[number] for number in numbers]), frame.intrinsics, frame.T_world_camera)
    ahead = seen.depth > 0
    pixels, z = seen.pixels[ahead], seen.depth[ahead]
    height, width = depth.shape
    columns = np.floor(pixels[:, 0] * width / frame.intrinsics.width).astype(int)
    rows = np.floor(pixels[:, 1] * height / frame.intrinsics.height).astype(int)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    measured = depth[rows[inside], columns[inside]].astype(np.float64)
    return measured[measured > 0] / z[inside][measured > 0]
