"""Whether two depth images agree: what one camera sees, the other must see there, too, or see something nearer."""

import dataclasses

import numpy as np
from jaxtyping import Float

from stereopsis.geometry.camera import Intrinsics


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeenAgain:
    """Points of one view, looked for in another.

    Attributes:
        points: how many were looked for.
        compared: how many fall on a measured pixel of the other view.
        agreeing: of these, how many lie at the measured depth.
        floating: of these, how many lie in front of it, where the other camera looked through empty space. The rest
            lies behind it, where something may hide them.
    """

    points: int = 0
    compared: int = 0
    agreeing: int = 0
    floating: int = 0

    def __add__(self, other: "SeenAgain") -> "SeenAgain":
        names = [field.name for field in dataclasses.fields(self)]
        return SeenAgain(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def overlap(self) -> float:
        """The share of the points that the other view could see, 0..1."""
        return self.compared / self.points if self.points else 0.0

    @property
    def agreement(self) -> float | None:
        """The share, among points that nothing hides, of those that lie where they were measured; None: none compared.

        Where more than half of all would be hidden, hiding is no excuse: all that were compared count.
        """
        told = self.agreeing + self.floating
        if 2 * told < self.compared:
            told = self.compared
        return self.agreeing / told if told else None


def seen_again(
    points: Float[np.ndarray, "n 3"],
    T_other_camera: Float[np.ndarray, "4 4"],
    depth: Float[np.ndarray, "height width"],
    camera: Intrinsics,
    *,
    tolerance: float = 0.05,
) -> SeenAgain:
    """Look for points of one view in another view's depth image.

    Args:
        points: [n, 3] in the first camera's axes (OpenCV), metres.
        T_other_camera: from the first camera to the other.
        depth: the other view's z-depth, metres, 0 = invalid.
        camera: its intrinsics.
        tolerance: relative difference of depth up to which a point counts as agreeing.
    """
    there = points @ T_other_camera[:3, :3].T + T_other_camera[:3, 3]
    z = there[:, 2]
    ahead = z > 1e-9
    safe = np.where(ahead, z, 1.0)
    column = there[:, 0] / safe * camera.fx + camera.cx
    row = there[:, 1] / safe * camera.fy + camera.cy
    inside = ahead & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    z = z[inside]
    measured = depth[row[inside].astype(np.int64), column[inside].astype(np.int64)].astype(np.float64)
    z, measured = z[measured > 0], measured[measured > 0]
    return SeenAgain(
        points=len(points),
        compared=len(z),
        agreeing=int((np.abs(z - measured) < tolerance * measured).sum()),
        floating=int((z <= measured * (1.0 - tolerance)).sum()),
    )
