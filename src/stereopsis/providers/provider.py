"""What every source of estimated geometry is asked, and what it answers, in one set of conventions.

Providers differ in everything: cameras that lead from or to the world, depth in metres or in any unit, confidence from
1 upwards or as logits. Each translates its own conventions here and nowhere else.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import Intrinsics


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A picture of unknown origin.

    Attributes:
        name: unique among its fellows, and fit to be a file's name.
        size: width and height, pixels.
        load_colour: returns uint8 [height, width, 3] RGB; picklable.
        focal: focal length in pixels, where the camera wrote it down; None where unknown.
    """

    name: str
    size: tuple[int, int]
    load_colour: Callable[[], np.ndarray]
    focal: float | None = None

    def colour(self) -> UInt8[np.ndarray, "height width 3"]:
        """Decode it."""
        return self.load_colour()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EstimatedView:
    """What a provider says of one picture.

    Attributes:
        intrinsics: of the picture (of the straightened one, where there is such).
        T_world_camera: [4, 4] camera to world, OpenCV axes; None from providers that know depth alone.
        depth: float32 [rows, cols] z-depth in the poses' unit, 0 = unknown; the whole picture at any size. None from
            providers that know cameras alone.
        valid: [rows, cols] where ``depth`` is to be believed: the provider's confidence, thresholded by its own rule.
        places: [n, 3] column and row in pixels (centres at +0.5), and z-depth, of points that are sure; may be empty.
        straight: loads the picture with the lens's distortion taken out; None where there is none.
    """

    intrinsics: Intrinsics
    T_world_camera: Float[np.ndarray, "4 4"] | None = None
    depth: Float[np.ndarray, "rows cols"] | None = None
    valid: Bool[np.ndarray, "rows cols"] | None = None
    places: Float[np.ndarray, "n 3"] = dataclasses.field(default_factory=lambda: np.zeros((0, 3)))
    straight: Callable[[], np.ndarray] | None = None

    def believed(self) -> Float[np.ndarray, "rows cols"] | None:
        """The depth, 0 wherever it is not to be believed."""
        if self.depth is None:
            return None
        sound = np.isfinite(self.depth) & (self.depth > 0)
        if self.valid is not None:
            sound &= self.valid
        return np.where(sound, self.depth, 0).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EstimatedGeometry:
    """What a provider says of all pictures.

    Attributes:
        views: {picture's name: what is known of it}, in the pictures' order.
        metric: whether the unit is the metre; else it is arbitrary, but one for all views that have poses.
        left_out: {picture's name: why nothing is known of it}.
        notes: what a person should know, as plain values.
    """

    views: Mapping[str, EstimatedView]
    metric: bool
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: Mapping[str, object] = dataclasses.field(default_factory=dict)


class GeometryProvider(abc.ABC):
    """Estimates geometry from colours.

    Attributes:
        name: as ``--geometry`` takes it.
        gives_poses: whether its views have ``T_world_camera``.
        gives_depth: whether its views have ``depth``.
    """

    name: str
    gives_poses: bool = True
    gives_depth: bool = True

    @abc.abstractmethod
    def check(self) -> None:
        """Refuse before any work what would end in a missing package.

        Raises:
            MissingExtraError: names the package and the command that installs it.
        """

    @abc.abstractmethod
    def estimate(
        self, pictures: Sequence[Picture], *, in_order: bool, known: EstimatedGeometry | None = None
    ) -> EstimatedGeometry:
        """Cameras and depth of some pictures.

        Args:
            pictures: two or more, straight where ``known`` is given.
            in_order: whether neighbours in the list were taken one after another, as in a video.
            known: the cameras of all these pictures, where another provider has estimated them.

        Raises:
            SceneError: nothing can be estimated from them; says why, and what to do.
        """


def check_enough(pictures: Sequence[Picture], least: int, who: str) -> None:
    """Refuse too few pictures.

    Raises:
        SceneError: there are fewer than ``least``.
    """
    if len(pictures) < least:
        raise SceneError(
            f"{who} got {len(pictures)} picture{'s'[: len(pictures) != 1]}, but estimating cameras takes {least} or "
            "more that overlap; give more pictures, a longer video, or more of its frames (--frames, --every)"
        )
