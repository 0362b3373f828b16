"""The one type that every reader returns: a scene is posed RGB-D frames, and optionally objects and words."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from stereopsis.annotations import Annotation
from stereopsis.errors import SceneError
from stereopsis.geometry.birdseye import BirdsEyeView
from stereopsis.geometry.camera import Intrinsics

MOST_ID_BYTES = 200
"""Names of files have 255 bytes, and a scene's folder carries a suffix while it is written."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One posed view; pixels are read only when asked for.

    Attributes:
        name: unique within the scene; caches are keyed by it.
        T_world_camera: [4, 4] float64, camera to (unaligned) world, metres, OpenCV axes.
        intrinsics: of the colour image.
        depth_intrinsics: of the depth image, where its size or lens differs from the colour image's.
        load_colour: returns uint8 [height, width, 3] RGB.
        load_depth: returns float32 [height, width] z-depth in metres, 0 = invalid; None where the source has none.
            Both loaders must be picklable (a module-level function under functools.partial).
    """

    name: str
    T_world_camera: Float[np.ndarray, "4 4"]
    intrinsics: Intrinsics
    load_colour: Callable[[], np.ndarray]
    load_depth: Callable[[], np.ndarray] | None = None
    depth_intrinsics: Intrinsics | None = None

    def colour(self) -> UInt8[np.ndarray, "height width 3"]:
        """Decode the colour image."""
        return self.load_colour()

    def depth(self) -> Float[np.ndarray, "height width"] | None:
        """Decode the depth image, metres, 0 = invalid; None where the source has none."""
        return None if self.load_depth is None else self.load_depth()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SceneObject:
    """An object instance.

    Attributes:
        id: unique within the scene (ScanNet's instance id where there is one).
        label: category name.
        box: [6] cx cy cz dx dy dz, axis-aligned in the ALIGNED world frame, metres.
        attributes: free-form facts; the procedural rooms set "colour", "material", "size" and "supported_by".
        visible_pixels: how many pixels of each frame show it, in frame order; empty where unknown.
    """

    id: int
    label: str
    box: Float[np.ndarray, "6"]
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    visible_pixels: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Proposal:
    """A candidate box for grounding: [6] cx cy cz dx dy dz in the aligned frame, metres, with a detector's score."""

    box: Float[np.ndarray, "6"]
    score: float = 1.0
    label: str = ""


def check_scene_id(name: str, where: str = "a scene") -> str:
    """A scene's id, if it can be the name of a folder.

    Args:
        name: the id.
        where: what says so, for the message.

    Raises:
        SceneError: it is empty, too long, hidden, or holds separators or control characters.
    """
    unfit = [c for c in name if c in "/\\" or not (c.isprintable() or c.isspace()) or c in "\n\r\t\v\f"]
    if unfit or not name.strip() or name.startswith(".") or len(name.encode(errors="replace")) > MOST_ID_BYTES:
        raise SceneError(
            f"{where}: the scene id {name[:80]!r} cannot be a folder's name; expected 1 to {MOST_ID_BYTES} bytes, none "
            "of them '/', '\\' or a control character, not beginning with '.'; rename the scene"
        )
    return name


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Posed RGB-D frames of one place, in metres, with whatever is known about it.

    Attributes:
        id: unique within its data set.
        frames: in capture order.
        T_aligned_world: [4, 4] from the frames' world to the gravity- and wall-aligned frame (z up, floor near 0).
        objects: instances, boxes in the aligned frame.
        proposals: candidate boxes of a detector for grounding; empty means that the objects' own boxes serve.
        annotations: questions, captions and expressions.
        birdseye: the view from above, where it has been rendered.
        provenance: where the scene comes from (format, path, generator version and seed, ...).
    """

    id: str
    frames: tuple[Frame, ...]
    T_aligned_world: Float[np.ndarray, "4 4"] = dataclasses.field(default_factory=lambda: np.eye(4))
    objects: tuple[SceneObject, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    birdseye: BirdsEyeView | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    above: ClassVar[dict[str, Callable[..., Any]]] = {}
    """What stands above this module and is offered as methods too; `stereopsis.scenes` puts it in."""

    def __post_init__(self) -> None:
        """Every reader comes here, so no scene ever has an id that leads out of the folder it is written to."""
        check_scene_id(self.id)
        ids = [item.id for item in self.objects]
        if len(set(ids)) < len(ids):
            twice = next(each for each in ids if ids.count(each) > 1)
            raise SceneError(f"scene '{self.id}': two objects have the id {twice}; give each its own")

    @classmethod
    def open(cls, path: Any, **options: Any) -> "Scene":
        """Open a scene folder of any known layout (see `stereopsis.scenes.open_scene`)."""
        opened: Scene = cls.above["open"](path, **options)
        return opened

    def save(self, path: Any, **options: Any) -> Any:
        """Write the scene whole or not at all, and return the folder (see `stereopsis.scenes.write_scene`)."""
        return self.above["save"](self, path, **options)

    def T_aligned_camera(self, frame: Frame) -> Float[np.ndarray, "4 4"]:
        """Camera to aligned world, metres."""
        return self.T_aligned_world @ frame.T_world_camera

    def object(self, object_id: int) -> SceneObject:
        """The object with this id.

        Raises:
            KeyError: no such object.
        """
        for candidate in self.objects:
            if candidate.id == object_id:
                return candidate
        raise KeyError(f"scene '{self.id}' has no object {object_id}")

    def replace(self, **changes: Any) -> "Scene":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def scale_known(scene: Scene) -> bool:
    """Whether its lengths are metres; False where geometry was estimated from colours and nothing told the scale."""
    scale = scene.provenance.get("scale")
    return not (isinstance(scale, Mapping) and scale.get("known") is False)
