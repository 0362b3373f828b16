"""Whether a scene's depth images and poses belong together: what one view measures, its neighbours must see there.

Units that are off by a factor, another camera's axes, inverse poses and quaternions in another order all give scenes
that look like scenes; only the views contradict each other. The check takes a few views spread over the capture, each
with the most distant of its neighbours that still looks at the same things. Where they contradict each other, the usual
mistakes are tried, and those under which the views would agree are named, with the option that says so.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from stereopsis.errors import FrameError
from stereopsis.geometry.agreement import SeenAgain, seen_again
from stereopsis.geometry.camera import Intrinsics, invert_pose
from stereopsis.scenes.alignment import thinned_depth
from stereopsis.scenes.conventions import Conventions
from stereopsis.scenes.scene import Frame, Scene

KEY = "depth_agreement"
"""Where the result stands in a scene's provenance."""
RIGHT = 0.85
"""Right captures agree at least so much (docs/capture.md has the measured table)."""
WRONG = 0.75
"""Captures that agree less are reported; between the two lie poor sensors and poor poses."""
SURE = 0.97
"""From here on, no mistake is looked for."""
MARGIN = 0.08
"""A usual mistake is named only where undoing it gains at least so much."""
DEPTH_SCALES = (1.0, 100.0, 1000.0, 4000.0, 5000.0, 6553.5, 10000.0)
"""Units per metre that data sets and cameras use."""
PLAUSIBLE_DEPTH = (0.1, 60.0)
"""Between these, metres, the median distance of what a capture of a place shows."""
MIN_OVERLAP = 0.2
_TOLERANCE = 0.05
_SHARP = 0.01
_MIN_POINTS = 200
_ANCHORS = 8
_COLUMNS = 320
_POINT_COLUMNS = 48
_MAX_GAP = 64
_ALWAYS_LOADED = 4

Verdict = Literal["agree", "contradict", "unknown"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remedy:
    """A usual mistake which, undone, makes the views agree.

    Attributes:
        options: as the commands take them, e.g. "--depth-scale 5000".
        agreement: the share that it reaches.
    """

    options: str
    agreement: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthAgreement:
    """What the views say of each other.

    Attributes:
        verdict: "agree", "contradict", or "unknown" where nothing can be compared.
        agreement: share of the points, among those that a second view must see, which lie where that view measured
            them; None where nothing can be compared.
        pairs: of views that were compared.
        points: how many points were compared.
        reason: why nothing can be said, or what else should be known.
        remedies: the usual mistakes which, undone, make the views agree; the best first.
        read_as: the conventions under which the scene was read, in words.
    """

    verdict: Verdict
    agreement: float | None = None
    pairs: int = 0
    points: int = 0
    reason: str = ""
    remedies: tuple[Remedy, ...] = ()
    read_as: str = ""

    def record(self) -> dict[str, Any]:
        """As plain values, for the provenance."""
        return {
            "verdict": self.verdict,
            "agreement": None if self.agreement is None else round(self.agreement, 3),
            "pairs": self.pairs,
            "points": self.points,
            **({"reason": self.reason} if self.reason else {}),
            **({"would_agree_with": [item.options for item in self.remedies]} if self.remedies else {}),
        }

    def __str__(self) -> str:
        if self.agreement is None:
            return f"cannot tell: {self.reason}{self._advice()}"
        share = f"{self.agreement:.0%} of what two views must both see lies in the same place ({self.pairs} pairs)"
        if self.verdict == "agree":
            return share + (f"; {self.reason}" if self.reason else "")
        return f"the views contradict each other: only {share}; right captures reach {RIGHT:.0%}{self._advice()}"

    def _advice(self) -> str:
        if not self.remedies:
            if self.verdict != "contradict":
                return ""
            return (
                f" (read as {self.read_as}); none of the usual mistakes explains it: check poses, depth and intrinsics"
            )
        best = self.remedies[0]
        also = "".join(f", or {item.options} ({item.agreement:.0%})" for item in self.remedies[1:3])
        return f" (read as {self.read_as}); they would agree with {best.options} ({best.agreement:.0%}){also}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _View:
    points: Float[np.ndarray, "n 3"]  # camera axes
    depth: Float[np.ndarray, "height width"]
    camera: Intrinsics
    T_world_camera: Float[np.ndarray, "4 4"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Hypothesis:
    conventions: Conventions
    options: str
    depth_factor: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Score:
    seen: SeenAgain
    pairs: int
    anchors: int
    still: bool

    @property
    def agreement(self) -> float | None:
        enough = self.seen.compared >= _MIN_POINTS and 2 * self.pairs >= min(4, self.anchors)
        return self.seen.agreement if enough else None


def depth_agreement(scene: Scene) -> DepthAgreement:
    """Compare a scene's depth images with each other through its poses.

    Decodes up to about forty depth images, at a fraction of their size; images that cannot be decoded are passed over.

    Args:
        scene: any scene.
    """
    conventions = Conventions.of_record(scene.provenance.get("conventions"))
    reason = _nothing_to_compare(scene)
    if reason:
        return DepthAgreement(verdict="unknown", reason=reason)
    views = _Views([frame for frame in scene.frames if frame.load_depth is not None])
    read = _Hypothesis(conventions=conventions, options="", depth_factor=1.0)
    comparison = _Comparison(views, conventions, _applied(scene))
    score = comparison.score(read)
    agreement = score.agreement
    found: dict[str, Any] = {"pairs": score.pairs, "points": score.seen.compared, "read_as": str(conventions)}
    remedies = () if agreement is not None and agreement >= SURE else comparison.remedies(agreement)
    if agreement is not None and agreement >= RIGHT and not remedies:
        reason = comparison.caveat(score)
        return DepthAgreement(verdict="agree", agreement=agreement, reason=reason, **found)
    if agreement is None:
        reason = "no two of the views that were tried look at the same things"
        verdict: Verdict = "contradict" if remedies else "unknown"
        return DepthAgreement(verdict=verdict, reason=reason, remedies=remedies, **found)
    verdict = "contradict" if remedies or agreement < WRONG else "agree"
    return DepthAgreement(verdict=verdict, agreement=agreement, remedies=remedies, **found)


def in_words(record: Mapping[str, Any]) -> str:
    """A recorded result, in short."""
    share = record.get("agreement")
    words = "cannot tell" if share is None else f"{share:.0%} ({record.get('pairs')} pairs of views)"
    if record.get("verdict") == "contradict":
        remedies = record.get("would_agree_with")
        with_option = f"; they would agree with {remedies[0]}" if remedies else f"; right captures reach {RIGHT:.0%}"
        words = f"the views contradict each other: {words}{with_option}"
    reason = record.get("reason")
    return f"{words}: {reason}" if reason else words


def with_depth_agreement(scene: Scene, found: DepthAgreement) -> Scene:
    """The scene with the result on record."""
    return scene.replace(provenance={**scene.provenance, KEY: found.record()})


def checked(scene: Scene) -> Scene:
    """The scene with the result on record; as it is where one is on record already, or no view has depth."""
    if KEY in scene.provenance or not any(frame.load_depth is not None for frame in scene.frames):
        return scene
    return with_depth_agreement(scene, depth_agreement(scene))


def _nothing_to_compare(scene: Scene) -> str:
    if sum(frame.load_depth is not None for frame in scene.frames) < 2:
        return "fewer than two views have depth"
    depth = scene.provenance.get("depth")
    if isinstance(depth, dict) and depth.get("source") == "mesh" and depth.get("frames", 0) >= len(scene.frames):
        return "depth was cast from a mesh through the same poses"
    return ""


def _applied(scene: Scene) -> Float[np.ndarray, "4 4"]:
    """What a reader applied to the world after the stored poses (transforms.json); the identity otherwise."""
    record = scene.provenance.get("conventions") or {}
    return np.array(record.get("world", np.eye(4)), dtype=np.float64)


def plausible(median_depth: float) -> bool:
    """Whether a capture of a place can have this median depth, metres."""
    return PLAUSIBLE_DEPTH[0] <= median_depth <= PLAUSIBLE_DEPTH[1]


class _Views:
    """Depth images by their place, decoded when first asked for."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames
        self._known: dict[int, _View | None] = {}

    def __len__(self) -> int:
        return len(self.frames)

    def loaded(self, place: int) -> bool:
        return place in self._known

    def at(self, place: int) -> _View | None:
        if place not in self._known:
            try:
                self._known[place] = _view(self.frames[place])
            except FrameError:  # reported where frames are checked
                self._known[place] = None
        return self._known[place]


def _view(frame: Frame) -> _View | None:
    camera = frame.depth_intrinsics or frame.intrinsics
    depth, camera = thinned_depth(frame, max(1, camera.width // _COLUMNS))
    step = max(1, round(camera.width / _POINT_COLUMNS))
    row, column = np.mgrid[step // 2 : camera.height : step, step // 2 : camera.width : step].reshape(2, -1)
    z = depth[row, column].astype(np.float64)
    row, column, z = row[z > 0], column[z > 0], z[z > 0]
    if not len(z):
        return None
    rays = ((column + 0.5 - camera.cx) / camera.fx, (row + 0.5 - camera.cy) / camera.fy, np.ones_like(z))
    return _View(points=np.stack(rays, 1) * z[:, None], depth=depth, camera=camera, T_world_camera=frame.T_world_camera)


class _Comparison:
    """Scores hypotheses on the same views."""

    def __init__(self, views: _Views, read: Conventions, world: np.ndarray) -> None:
        self.views, self.read, self.world = views, read, world
        self.anchors = sorted({round(place) for place in np.linspace(0, len(views) - 2, _ANCHORS)})

    def score(self, hypothesis: _Hypothesis, tolerance: float = _TOLERANCE) -> _Score:
        """Each anchor with its most distant neighbour that still sees the same things, both ways."""
        total, still, pairs = SeenAgain(), SeenAgain(), 0
        for anchor in self.anchors:
            chosen: tuple[SeenAgain, int] | None = None
            for other in self._neighbours(anchor, extend=not hypothesis.options):
                seen = self._both_ways(anchor, other, hypothesis, tolerance)
                if seen.overlap >= MIN_OVERLAP:
                    chosen = seen, other
                elif not hypothesis.options and other - anchor >= _ALWAYS_LOADED:
                    break
            if chosen is not None:
                total, pairs = total + chosen[0], pairs + 1
                still = still + self._both_ways(anchor, chosen[1], None)
        unmoved = still.agreement is not None and still.agreement > 0.95
        return _Score(seen=total, pairs=pairs, anchors=len(self.anchors), still=unmoved)

    def remedies(self, agreement: float | None) -> tuple[Remedy, ...]:
        """The usual mistakes that explain a contradiction: single ones if any does, else two at a time."""
        for count in (1, 2) if agreement is None or agreement < WRONG else (1,):
            found = [(other, self.score(other).agreement or 0.0) for other in _suspects(self.read, count)]
            found = [item for item in found if item[1] >= max(RIGHT, (agreement or 0.0) + MARGIN)]
            if found:
                # Units that differ by a quarter may all be near enough over short ways: the stricter look decides.
                sharp = [self.score(hypothesis, tolerance=_SHARP).agreement or 0.0 for hypothesis, _ in found]
                order = sorted(range(len(found)), key=lambda index: -sharp[index])
                return tuple(
                    Remedy(options=self._in_words(found[index][0]), agreement=found[index][1])
                    for index in order
                    if sharp[index] >= max(sharp) - 0.02
                )
        return ()

    def _in_words(self, hypothesis: _Hypothesis) -> str:
        """The options; where depth would become implausible, the unit of the poses is at fault, not that of depth."""
        factor = hypothesis.depth_factor
        if factor == 1.0 or plausible(self._median() * factor) or not plausible(self._median()):
            return hypothesis.options
        scale = f"--depth-scale {hypothesis.conventions.depth_scale:g}"
        return hypothesis.options.replace(scale, f"--pose-unit {self.read.pose_unit / factor:g}")

    def caveat(self, score: _Score) -> str:
        """What an agreement does not show."""
        notes = []
        if score.still:
            notes.append("the camera hardly moves, so that this shows little")
        else:
            wrong = _Hypothesis(conventions=self.read, options="five times", depth_factor=5.0)
            other = self.score(wrong).agreement
            if other is not None and other >= RIGHT:
                notes.append("the camera turns on the spot, so that this does not show the unit of depth")
        if not plausible(self._median()):
            notes.append(
                f"but half of everything lies farther than {self._median():.3g} m: check the units of depth and of "
                "poses (--depth-scale, --pose-unit)"
            )
        return "; ".join(notes)

    def _median(self) -> float:
        """The median depth of the views that were decoded, metres."""
        places = [place for place in range(len(self.views)) if self.views.loaded(place)]
        return float(np.median(np.concatenate([v.points[:, 2] for place in places if (v := self.views.at(place))])))

    def _neighbours(self, anchor: int, *, extend: bool) -> Iterator[int]:
        for power in itertools.count():
            gap = 2**power
            other = anchor + gap
            if gap > _MAX_GAP or other >= len(self.views):
                return
            if extend or self.views.loaded(other):
                yield other

    def _both_ways(
        self, first: int, second: int, hypothesis: _Hypothesis | None, tolerance: float = _TOLERANCE
    ) -> SeenAgain:
        """Points of either view looked for in the other; without a hypothesis, as if the camera had not moved."""
        a, b = self.views.at(first), self.views.at(second)
        if a is None or b is None:
            return SeenAgain()
        if hypothesis is None:
            return seen_again(a.points, np.eye(4), b.depth, b.camera) + seen_again(
                b.points, np.eye(4), a.depth, a.camera
            )
        factor = hypothesis.depth_factor
        poses = [self._pose(view, hypothesis) for view in (a, b)]
        total = SeenAgain()
        for here, there, relative in (
            (a, b, invert_pose(poses[1]) @ poses[0]),
            (b, a, invert_pose(poses[0]) @ poses[1]),
        ):
            # Scaling depth by a factor is scaling positions by its inverse, which leaves the images alone.
            relative[:3, 3] /= factor
            total = total + seen_again(here.points, relative, there.depth, there.camera, tolerance=tolerance)
        return total

    def _pose(self, view: _View, hypothesis: _Hypothesis) -> np.ndarray:
        if hypothesis.conventions == self.read:
            return view.T_world_camera
        before = np.linalg.inv(self.world) @ view.T_world_camera
        return self.world @ self.read.reread(before, hypothesis.conventions)


def _suspects(read: Conventions, mistakes: int) -> Iterator[_Hypothesis]:
    """The conventions that differ from those read in so many ways at once."""
    choices: list[list[tuple[str, Any, str]]] = [
        [("axes", other, f"--axes {other}") for other in ("opencv", "opengl") if other != read.axes],
        [("pose", d, f"--pose {d}") for d in ("camera-to-world", "world-to-camera") if d != read.pose],
        [("depth_scale", s, f"--depth-scale {s:g}") for s in DEPTH_SCALES if abs(s / read.depth_scale - 1) > 0.01],
    ]
    if read.quaternion is not None:
        choices.append([("quaternion", o, f"--quaternion {o}") for o in ("xyzw", "wxyz") if o != read.quaternion])
    for kinds in itertools.combinations(choices, mistakes):
        for combination in itertools.product(*kinds):
            changes = {name: value for name, value, _ in combination}
            other = dataclasses.replace(read, **changes)
            yield _Hypothesis(
                conventions=other,
                options=" ".join(option for _, _, option in combination),
                depth_factor=read.depth_scale / other.depth_scale,
            )
