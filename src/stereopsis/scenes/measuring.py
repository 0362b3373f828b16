"""How far, how large: distances and sizes in a scene, and how sure one can be of them.

What is measured comes from depth images that see a place several times and never agree quite. The uncertainty of a
point is how far the views' depths scatter around it, so it knows the sensor, the poses and the distance of this very
capture. Where one view alone saw a place, the error of a structured-light sensor at that distance stands in (Nguyen,
Izadi and Lovell, 2012: 1.2 mm + 1.9 mm (z - 0.4)^2, z in metres).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import Intrinsics, project, unproject
from stereopsis.scenes.alignment import thinned_depth
from stereopsis.scenes.scene import Scene, scale_known

MOST_VIEWS = 48
COLUMNS = 320
"""Depth images are thinned to about so many columns."""
SAME_SURFACE = 0.1
"""Metres; a view whose depth differs by more looks at something else there."""
_SAMPLES = 24
_UNKNOWN_SCALE = ("assumed", "arbitrary", "unknown", "relative")


class UnknownScaleError(SceneError):
    """Lengths of a scene whose unit nobody knows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """Whether a scene's lengths are metres, and on what that rests."""

    known: bool
    words: str


def scale_of(scene: Scene) -> Scale:
    """What the scene's provenance says of its unit; sensors measure metres, pictures alone do not."""
    said = scene.provenance.get("scale")
    if isinstance(said, Mapping):
        words = str(
            said.get("from")
            or said.get("words")
            or said.get("method")
            or ", ".join(f"{k}: {v}" for k, v in said.items())
        )
        return Scale(known=scale_known(scene), words=words)
    if said is not None:
        return Scale(known=words_say_known(str(said)), words=str(said))
    if not any(frame.load_depth is not None for frame in scene.frames):
        return Scale(known=False, words="no frame has depth, and pictures alone have no unit")
    return Scale(known=True, words="metres, as the depth images say")


def words_say_known(words: str) -> bool:
    """Whether a sentence on the scale owns up to none of what makes it a guess."""
    return not any(sign in words.lower() for sign in _UNKNOWN_SCALE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """How far depths scatter around a point: one standard deviation in metres, and how many views saw it."""

    sigma: float
    views: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thing:
    """One of two things that are measured.

    Attributes:
        at: centre of the box, or the point, aligned frame, metres.
        size: the box's sides, metres; None for a point.
        sigma: one standard deviation of where its surface is, metres; None where no view saw it.
        views: how many views saw it.
    """

    at: tuple[float, float, float]
    size: tuple[float, float, float] | None
    sigma: float | None
    views: int

    @property
    def floor_area(self) -> float | None:
        """Square metres that its box covers, seen from above."""
        return None if self.size is None else self.size[0] * self.size[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """What lies between two things, or how large one is.

    Attributes:
        things: one or two.
        distance: between the points, or between the boxes' nearest surfaces, metres; None for one thing.
        between: the two ends of that line; empty for one thing.
        centres: distance of the centres, metres.
        uncertainty: one standard deviation of the distance (of a side, for one thing), metres; None where nobody knows.
        scale: on what the metres rest.
    """

    things: tuple[Thing, ...]
    distance: float | None
    between: tuple[tuple[float, float, float], ...]
    centres: float | None
    uncertainty: float | None
    scale: str

    @property
    def horizontal(self) -> float | None:
        """The distance along the floor, metres."""
        return math.dist(self.between[0][:2], self.between[1][:2]) if self.between else None

    @property
    def vertical(self) -> float | None:
        """The difference in height, metres."""
        return abs(self.between[0][2] - self.between[1][2]) if self.between else None

    @property
    def sentence(self) -> str:
        """For people."""
        give_or_take = "" if self.uncertainty is None else _doubt(self.uncertainty)
        parts = []
        if self.distance is not None:
            parts.append(f"{_rounded(self.distance)}{give_or_take} m apart")
            if any(thing.size is not None for thing in self.things):
                parts[-1] += f" (centres {_rounded(self.centres or 0.0)} m)"
        for thing in self.things:
            if thing.size is not None:
                area = _rounded(thing.floor_area or 0.0)
                sides = " x ".join(_rounded(side) for side in thing.size)
                sure = "" if thing.sigma is None else _doubt(thing.sigma, 2 * math.sqrt(2))
                parts.append(f"{sides}{sure} m (wide, deep, high), {area} m² of floor")
        if not parts:
            x, y, z = self.things[0].at
            parts.append(f"at x {x:.2f}, y {y:.2f}, {z:.2f} m above the floor{give_or_take}")
        return "; ".join(parts)

    def plain(self) -> dict[str, Any]:
        """What JSON can hold; metres to the millimetre."""
        content = dataclasses.asdict(self) | {"horizontal": self.horizontal, "vertical": self.vertical}
        for thing, own in zip(content["things"], self.things, strict=True):
            thing["floor_area"] = own.floor_area
        return _millimetres(content) | {"unit": "m", "sentence": self.sentence}

    def _repr_html_(self) -> str:
        return f"<p>{self.sentence}</p>"


def _rounded(metres: float) -> str:
    return f"{metres:.2f}"


def _doubt(sigma: float, factor: float = 2.0) -> str:
    """Two standard deviations; never less than what is written of the length itself."""
    return f" ± {max(0.01, factor * sigma):.2f}"


def _millimetres(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _millimetres(each) for key, each in value.items()}
    return [_millimetres(each) for each in value] if isinstance(value, (list, tuple)) else value


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Surveyed:
    depth: Float[np.ndarray, "height width"]
    camera: Intrinsics
    pose: Float[np.ndarray, "4 4"]


def _some_points(view: _Surveyed) -> Float[np.ndarray, "_ 3"]:
    step = max(1, view.camera.width // 80)
    seen = unproject(view.depth, view.camera, view.pose)
    return seen.points[::step, ::step][seen.valid[::step, ::step]]


class Survey:
    """A scene's depth images, thinned and kept, to measure in it as often as one likes.

    Args:
        scene: posed frames; those without depth tell nothing here.
        most: at most so many views, evenly spread.

    Raises:
        FrameError: a depth image cannot be read.
    """

    def __init__(self, scene: Scene, *, most: int = MOST_VIEWS) -> None:
        self.scene_id, self.scale = scene.id, scale_of(scene)
        seen = [frame for frame in scene.frames if frame.load_depth is not None]
        chosen: Any = np.unique(np.linspace(0, len(seen) - 1, min(most, len(seen))).astype(int)) if seen else []
        self.views = []
        for index in chosen:
            frame = seen[index]
            camera = frame.depth_intrinsics or frame.intrinsics
            depth, camera = thinned_depth(frame, max(1, camera.width // COLUMNS))
            self.views.append(_Surveyed(depth=depth, camera=camera, pose=scene.T_aligned_camera(frame)))
        self._points = np.concatenate([_some_points(view) for view in self.views] or [np.zeros((0, 3), np.float32)])

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        return self._points.nbytes + sum(view.depth.nbytes for view in self.views)

    def spread(self, point: Any) -> Spread | None:
        """How far the views' depths scatter around a point.

        Args:
            point: [3] aligned frame, metres.

        Returns:
            None where no view saw a surface there.
        """
        residuals, footprint, nearest = [], math.inf, math.inf
        for view in self.views:
            seen = project(np.asarray(point, dtype=np.float64), view.camera, view.pose)
            z = float(seen.depth)
            if z <= 0.05 or not np.isfinite(seen.pixels).all():
                continue
            column, row = (int(v) for v in np.floor(seen.pixels))
            if not (0 <= column < view.camera.width and 0 <= row < view.camera.height):
                continue
            depth = float(view.depth[row, column])
            if depth <= 0 or not math.isfinite(depth) or abs(depth - z) > SAME_SURFACE:
                continue
            residuals.append(depth - z)
            footprint, nearest = min(footprint, z / view.camera.fx), min(nearest, z)
        if not residuals:
            return None
        if len(residuals) == 1:
            sensor = 0.0012 + 0.0019 * (nearest - 0.4) ** 2
            return Spread(sigma=math.hypot(sensor, footprint / 2), views=1)
        # One residual is zero where the point was picked from one of the views: n - 1, as for any sample.
        scatter = math.sqrt(sum(r * r for r in residuals) / (len(residuals) - 1))
        return Spread(sigma=math.hypot(scatter, footprint / 2), views=len(residuals))

    def measure(self, a: Sequence[float], b: Sequence[float] | None = None) -> Measurement:
        """Distance of two things, or the size of one.

        Args:
            a: a point [3] or a box [6], aligned frame, metres.
            b: the other; None measures ``a`` alone.

        Raises:
            UnknownScaleError: the scene's unit is a guess.
            SceneError: something is neither a point nor a box.
        """
        if not self.scale.known:
            raise UnknownScaleError(
                f"scene '{self.scene_id}' cannot be measured in metres: its scale is not known ({self.scale.words}); "
                "prepare it again with what tells it (--pose-unit, or for pictures --known-distance or --camera-height)"
            )
        given = [_checked(each) for each in (a, b) if each is not None]
        things = tuple(self._thing(each) for each in given)
        if len(given) == 1:
            sigma = things[0].sigma
            side = None if sigma is None else sigma * (math.sqrt(2) if things[0].size else 1.0)
            return Measurement(
                things=things, distance=None, between=(), centres=None, uncertainty=side, scale=self.scale.words
            )
        ends = nearest_points(*given)
        sigmas = [thing.sigma for thing in things]
        known = [s for s in sigmas if s is not None]
        return Measurement(
            things=things,
            distance=math.dist(*ends),
            between=ends,
            centres=math.dist(things[0].at, things[1].at),
            uncertainty=math.hypot(*known) if len(known) == 2 else None,
            scale=self.scale.words,
        )

    def _thing(self, given: Float[np.ndarray, "_"]) -> Thing:
        if len(given) == 3:
            spread = self.spread(given)
            return _thing(given, None, spread)
        return _thing(given[:3], given[3:], self.spread_in(given))

    def spread_in(self, box: Float[np.ndarray, "6"]) -> Spread | None:
        """The median scatter of the surfaces inside a box; None where no view saw any."""
        low, high = box[:3] - box[3:] / 2 - 0.01, box[:3] + box[3:] / 2 + 0.01
        cloud = self._points[((self._points >= low) & (self._points <= high)).all(-1)]
        if not len(cloud):
            return None
        chosen = cloud[np.linspace(0, len(cloud) - 1, min(_SAMPLES, len(cloud))).astype(int)]
        spreads = [found for point in chosen if (found := self.spread(point)) is not None]
        if not spreads:
            return None
        return Spread(sigma=float(np.median([s.sigma for s in spreads])), views=max(s.views for s in spreads))


def _thing(at: Any, size: Any, spread: Spread | None) -> Thing:
    def triple(values: Any) -> Any:
        return tuple(float(v) for v in values)

    return Thing(
        at=triple(at),
        size=None if size is None else triple(size),
        sigma=None if spread is None else spread.sigma,
        views=0 if spread is None else spread.views,
    )


def _checked(given: Sequence[float]) -> Float[np.ndarray, "_"]:
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SceneError(
            f"a point [x, y, z] or a box [cx, cy, cz, dx, dy, dz] was expected, found {given!r}"
        ) from error
    sane = values.shape in ((3,), (6,)) and np.isfinite(values).all() and np.abs(values).max() < 1e5
    if not sane or (len(values) == 6 and (values[3:] < 0).any()):
        raise SceneError(
            f"a point [x, y, z] or a box [cx, cy, cz, dx, dy, dz] in metres was expected, found {given!r}; sides of "
            "boxes are not negative"
        )
    return values


def nearest_points(
    a: Float[np.ndarray, "_"], b: Float[np.ndarray, "_"]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """The nearest points of two things, each a point [3] or a box [6]; where they overlap both are the same."""
    first, second = [], []
    for axis in range(3):
        low_a, high_a = _range(a, axis)
        low_b, high_b = _range(b, axis)
        if high_a < low_b:
            ends = high_a, low_b
        elif high_b < low_a:
            ends = low_a, high_b
        else:  # they overlap along this axis: halfway through what they share
            ends = ((max(low_a, low_b) + min(high_a, high_b)) / 2,) * 2
        first.append(ends[0])
        second.append(ends[1])
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])


def _range(thing: Float[np.ndarray, "_"], axis: int) -> tuple[float, float]:
    half = float(thing[3 + axis]) / 2 if len(thing) == 6 else 0.0
    return float(thing[axis]) - half, float(thing[axis]) + half


def measure(scene: Scene, a: Sequence[float], b: Sequence[float] | None = None) -> Measurement:
    """`Survey.measure` for one measurement; a `Survey` reads the depth images only once."""
    return Survey(scene).measure(a, b)
