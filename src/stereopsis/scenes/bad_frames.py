"""What happens to frames that cannot be used: stop, or leave them out, counted and reported, up to a limit.

Every reader follows this one policy. Frames that were left out stand in ``scene.provenance["skipped"]`` as
``{frame name: reason}``, so that no report can miss them.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Literal, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics, check_pose
from stereopsis.scenes.scene import Frame, Scene

OnBadFrame = Literal["raise", "skip"]
Item = TypeVar("Item")
MAX_BAD_FRACTION = 0.2
MOST_FOCAL = 1000
"""Focal length over image size, and its inverse: lenses of 0.06 to 180 degrees lie between."""
MOST_STRAY, NEAR = 50.0, 0.5
"""A camera so many times farther from the cameras' middle than half of them (or than so many metres) is no walk."""
BLANK_DEPTH = "blank_depth"
"""Where a provenance lists the frames whose depth image holds nothing at all."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FramePixels:
    """A frame's decoded and checked images.

    Attributes:
        colour: uint8 [height, width, 3].
        depth: float32 [height, width] metres, 0 = invalid; None where the source has none.
    """

    colour: UInt8[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "depth_height depth_width"] | None


def check_frame(frame: Frame) -> FramePixels:
    """Decode one frame and check its pose, its pixels and their size.

    Raises:
        FrameError: the frame is unusable.
    """
    check_frame_pose(frame.T_world_camera, f"frame '{frame.name}'")
    colour = frame.colour()
    expected = (frame.intrinsics.height, frame.intrinsics.width, 3)
    if colour.shape != expected or colour.dtype != np.uint8:
        raise FrameError(
            f"frame '{frame.name}': colour is {colour.dtype} {list(colour.shape)}, expected uint8 "
            f"{list(expected)} as its intrinsics say; resize images and intrinsics together"
        )
    depth = frame.depth()
    if depth is None:
        return FramePixels(colour=colour, depth=None)
    camera = frame.depth_intrinsics or frame.intrinsics
    if depth.shape != (camera.height, camera.width):
        raise FrameError(
            f"frame '{frame.name}': depth is {list(depth.shape)}, expected [{camera.height}, "
            f"{camera.width}] as its intrinsics say; resize images and intrinsics together"
        )
    if not np.isfinite(depth).all() or depth.min() < 0:
        raise FrameError(
            f"frame '{frame.name}': depth holds negative or non-finite values; expected metres, 0 where "
            "invalid; export the depth again"
        )
    return FramePixels(colour=colour, depth=depth)


def check_frame_pose(pose: np.ndarray, where: str) -> None:
    """Check that a pose is a finite rigid transform.

    Args:
        pose: supposed to be [4, 4] camera to world.
        where: the file or frame to name in the message.

    Raises:
        FrameError: it is not.
    """
    try:
        check_pose(pose)
    except ValueError as error:
        raise FrameError(
            f"{where}: unusable pose: {error}; expected a finite 4x4 camera-to-world matrix with an "
            "orthonormal rotation, metres; correct the pose, or leave the frame out with on_bad_frame='skip'"
        ) from error


def check_intrinsics(intrinsics: Intrinsics, where: str) -> None:
    """Check that focal lengths are positive and that the principal point lies in the image.

    Raises:
        SceneError: they are not, or something is not finite.
    """
    values = dataclasses.astuple(intrinsics)
    centred = 0 <= intrinsics.cx <= intrinsics.width and 0 <= intrinsics.cy <= intrinsics.height
    lengths = ((intrinsics.fx, intrinsics.width), (intrinsics.fy, intrinsics.height))
    focal = all(size / MOST_FOCAL < each < size * MOST_FOCAL for each, size in lengths)
    if not (np.isfinite(values).all() and focal and centred):
        raise SceneError(
            f"{where}: implausible intrinsics {intrinsics}; expected finite values, positive focal lengths in pixels "
            f"(less than {MOST_FOCAL} times the image's size) and a principal point inside the "
            f"{intrinsics.width}x{intrinsics.height} image; correct the intrinsics"
        )


def check_cameras(scene: Scene, where: str) -> None:
    """Check the intrinsics of all frames, each camera once.

    Raises:
        SceneError: as `check_intrinsics`.
    """
    seen = {camera for frame in scene.frames for camera in (frame.intrinsics, frame.depth_intrinsics) if camera}
    for camera in seen:
        check_intrinsics(camera, where)


def check_policy(on_bad_frame: str) -> None:
    """Refuse an unknown policy name.

    Raises:
        SceneError: it is neither "raise" nor "skip".
    """
    if on_bad_frame not in ("raise", "skip"):
        raise SceneError(f"on_bad_frame='{on_bad_frame}' is unknown; choose 'raise' or 'skip'")


def check_skipped(where: str, total: int, skipped: Mapping[str, str], max_bad_fraction: float) -> None:
    """Stop where too many frames, or all of them, are unusable.

    Args:
        where: the scene's folder or id, for the message.
        total: frames before any was left out.
        skipped: {frame name: reason}.
        max_bad_fraction: the largest tolerated share of skipped frames.

    Raises:
        SceneError: no frame is left, or the share is exceeded; the message holds the first three reasons.
    """
    share = len(skipped) / max(1, total)
    if skipped and (share >= 1 or share > max_bad_fraction):
        first = "\n  ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        more = "" if share >= 1 else f", or tolerate more (--max-bad-fraction {_next_tenth(share):g}, max_bad_fraction)"
        raise SceneError(
            f"{where}: {len(skipped)} of {total} frames are unusable, more than the tolerated "
            f"{max_bad_fraction:.0%}; repair the capture{more}; the first reasons:\n  {first}"
        )


def _next_tenth(share: float) -> float:
    """A round share that is not exceeded."""
    return math.ceil(share * 10 - 1e-9) / 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collected(Generic[Item]):
    """What could be made of a source's frames, and the names of those that were left out, with the reasons.

    Attributes:
        items: one per usable frame, in order.
        skipped: {frame name: reason}.
        where: the scene's folder, for messages.
        on_bad_frame: the policy, for what else may turn out to be bad.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.
    """

    items: tuple[Item, ...]
    skipped: Mapping[str, str]
    where: str
    on_bad_frame: OnBadFrame
    max_bad_fraction: float

    def only(
        self, usable: Callable[[Item], bool], name: Callable[[Item], str], why: Callable[[Item], str]
    ) -> "Collected[Item]":
        """Leave out (or stop at) the items that are not usable.

        Args:
            usable: tells.
            name: of the item's frame.
            why: an unusable item's message.

        Raises:
            FrameError: one is not usable and the policy is "raise".
            SceneError: too many are not.
        """
        skipped = dict(self.skipped)
        for item in self.items:
            if not usable(item):
                if self.on_bad_frame == "raise":
                    raise FrameError(why(item))
                skipped[name(item)] = why(item)
        check_skipped(self.where, len(self.items) + len(self.skipped), skipped, self.max_bad_fraction)
        return dataclasses.replace(self, items=tuple(filter(usable, self.items)), skipped=skipped)


def collect(
    where: str,
    names: Sequence[str],
    build: Callable[[int], Item],
    *,
    on_bad_frame: OnBadFrame,
    max_bad_fraction: float,
) -> Collected[Item]:
    """Build frames (or what will become frames) one after the other under the policy for bad frames.

    Args:
        where: the scene's folder, for messages.
        names: of all frames; one that comes again is a bad frame.
        build: makes number i; a FrameError says that it is bad.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: too many bad frames.
    """
    items: list[Item] = []
    skipped: dict[str, str] = {}
    seen: set[str] = set()
    for index, name in enumerate(names):
        again = name in seen
        seen.add(name)
        try:
            if again:
                raise FrameError(
                    f"{where}: frame '{name}' is listed more than once; expected each frame once; remove the repeated "
                    "entries, or leave them out with on_bad_frame='skip'"
                )
            items.append(build(index))
        except FrameError as error:
            if on_bad_frame == "raise":
                raise
            skipped[f"{name} (entry {index + 1})" if again else name] = str(error)
    check_skipped(where, len(names), skipped, max_bad_fraction)
    return Collected(
        items=tuple(items),
        skipped=skipped,
        where=where,
        on_bad_frame=on_bad_frame,
        max_bad_fraction=max_bad_fraction,
    )


def drop_frames(scene: Scene, reasons: Mapping[str, str]) -> Scene:
    """The scene without some frames; pixel counts of objects follow, and the provenance lists the reasons.

    Args:
        scene: any scene.
        reasons: {frame name: why it is left out}.
    """
    if not reasons:
        return scene
    kept = [index for index, frame in enumerate(scene.frames) if frame.name not in reasons]
    skipped = {**scene.provenance.get("skipped", {}), **reasons}
    return keep_frames(scene.replace(provenance={**scene.provenance, "skipped": skipped}), kept)


def keep_frames(scene: Scene, kept: Sequence[int]) -> Scene:
    """The scene with some of its frames only; pixel counts of objects follow.

    Args:
        scene: any scene.
        kept: indices of frames, in the order in which they are wanted.
    """
    objects = tuple(
        dataclasses.replace(item, visible_pixels=tuple(item.visible_pixels[index] for index in kept))
        if item.visible_pixels
        else item
        for item in scene.objects
    )
    return scene.replace(frames=tuple(scene.frames[index] for index in kept), objects=objects)


def stray_cameras(scene: Scene) -> dict[str, str]:
    """Cameras that stand nowhere near the others, as one pose in millimetres among metres does; {name: reason}."""
    places = np.array([frame.T_world_camera[:3, 3] for frame in scene.frames], dtype=np.float64)
    if len(places) < 3 or not np.isfinite(places).all():
        return {}
    away = np.linalg.norm(places - np.median(places, axis=0), axis=1)
    usual = max(float(np.median(away)), NEAR)
    return {
        frame.name: f"its camera stands {distance:.0f} m from the middle of the others, half of which are within "
        f"{usual:.1f} m: is its pose in another unit? Correct it, or leave the frame out with on_bad_frame='skip'"
        for frame, distance in zip(scene.frames, away, strict=True)
        if distance > MOST_STRAY * usual
    }


def verify_scene(
    scene: Scene, *, on_bad_frame: OnBadFrame = "raise", max_bad_fraction: float = MAX_BAD_FRACTION
) -> Scene:
    """Decode every frame once and apply the policy for bad frames.

    Args:
        scene: any scene.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames (those skipped earlier included) at which "skip" stops, too.

    Returns:
        The scene, without its bad frames; ``provenance["skipped"]`` holds the reasons, ``provenance["blank_depth"]``
        the names of frames that stay although their depth image is empty.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: too many frames are bad, or there is none.
    """
    check_policy(on_bad_frame)
    if not scene.frames:
        raise SceneError(f"scene '{scene.id}' has no frames; expected at least one posed view; read another folder")
    reasons: dict[str, str] = {}
    blank: list[str] = []
    stray = stray_cameras(scene)
    for frame in scene.frames:
        try:
            if frame.name in stray:
                raise FrameError(f"frame '{frame.name}': {stray[frame.name]}")
            depth = check_frame(frame).depth
            if depth is not None and not depth.any():
                blank.append(frame.name)
        except FrameError as error:
            if on_bad_frame == "raise":
                raise
            reasons[frame.name] = str(error)
    earlier = scene.provenance.get("skipped", {})
    total = len(scene.frames) + len(earlier)
    check_skipped(f"scene '{scene.id}'", total, {**earlier, **reasons}, max_bad_fraction)
    if blank:
        scene = scene.replace(provenance={**scene.provenance, BLANK_DEPTH: blank})
    return drop_frames(scene, reasons)
