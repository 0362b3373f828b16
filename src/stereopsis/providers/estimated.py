"""A scene from pictures alone: a provider's cameras and depth become frames like those of any capture."""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.errors import SceneError
from stereopsis.providers.combination import as_straight
from stereopsis.providers.pictures import Choice, read_footage
from stereopsis.providers.provider import EstimatedGeometry, Picture
from stereopsis.providers.registry import make_provider
from stereopsis.providers.scale import KnownDistance, scaled
from stereopsis.scenes.alignment import align_scene
from stereopsis.scenes.prepare.settings import PrepareSettings
from stereopsis.scenes.scene import Frame, Scene

LEAST_KNOWN = 0.002
"""Depth images that hold less than this share of a picture count as none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EstimatedScene:
    """A video, or a folder of photos, as a source of `stereopsis.scenes.prepare.prepare`.

    Attributes:
        path: the file or folder.
        geometry: the provider, as `stereopsis.providers.registry.make_provider` takes it.
        choice: which frames are looked at.
        known: a measured length.
        camera_height: of the camera above the floor, metres, median over the capture; used where nothing else tells
            the scale.
    """

    path: Path
    geometry: str
    choice: Choice = Choice()  # noqa: RUF009
    known: KnownDistance | None = None
    camera_height: float | None = None

    @property
    def name(self) -> str:
        """The path, as given."""
        return str(self.path)

    @property
    def scene_id(self) -> str:
        """The file's name without suffix, or the folder's."""
        stem = self.path.stem if self.path.is_file() else self.path.resolve().name
        return re.sub(r"[^\w.-]", "-", stem).lstrip(".") or "scene"

    def made_with(self, settings: PrepareSettings) -> dict[str, Any]:
        """The settings, and how geometry was estimated."""
        own = {**dataclasses.asdict(self), "path": str(self.path)}
        return {**settings.record(), "estimated": own}

    def load(self, settings: PrepareSettings) -> Scene:
        """Estimate everything; this is where the time goes.

        Raises:
            SceneError: nothing can be estimated; says why, and what to do.
            MissingExtraError: the provider is not installed.
        """
        provider = make_provider(self.geometry)
        provider.check()
        choice = dataclasses.replace(self.choice, keep_cut=settings.on_bad_frame == "skip")
        footage = read_footage(self.path, choice)
        found = provider.estimate(footage.pictures, in_order=footage.in_order)
        found, scale = scaled(found, self.known)
        facts = {
            "format": "estimated",
            "path": str(self.path),
            "geometry": {"provider": provider.name, **found.notes},
            "scale": scale,
            "pictures": footage.notes,
            "left_out": {**footage.left_out, **found.left_out},
        }
        scene = Scene(id=self.scene_id, frames=frames_of(footage.pictures, found), provenance=facts)
        if self.camera_height is not None and not scale["known"]:
            scene = with_camera_height(scene, self.camera_height)
        return scene


def frames_of(pictures: tuple[Picture, ...], geometry: EstimatedGeometry) -> tuple[Frame, ...]:
    """The views that have cameras, with depth where it is believed and 0 elsewhere."""
    frames = []
    for picture in pictures:
        view = geometry.views.get(picture.name)
        if view is None or view.T_world_camera is None:
            continue
        depth = view.believed()
        if depth is not None and (depth > 0).mean() < LEAST_KNOWN:
            depth = None
        of_depth = None if depth is None else view.intrinsics.resized(depth.shape[1], depth.shape[0])
        frames.append(
            Frame(
                name=picture.name,
                T_world_camera=view.T_world_camera,
                intrinsics=view.intrinsics,
                load_colour=as_straight(picture, view).load_colour,
                load_depth=None if depth is None else functools.partial(np.array, depth),
                depth_intrinsics=None if of_depth == view.intrinsics else of_depth,
            )
        )
    return tuple(frames)


def with_camera_height(scene: Scene, metres: float) -> Scene:
    """The scene in metres, if its cameras were held that high above the floor (the median over the frames).

    Raises:
        SceneError: no height, no floor, or a floor above the cameras.
    """
    if not (np.isfinite(metres) and metres > 0):
        raise SceneError(f"--camera-height {metres}: expected metres above 0, e.g. 1.5")
    aligned = align_scene(scene).scene
    height = float(np.median([aligned.T_aligned_camera(frame)[2, 3] for frame in scene.frames]))
    if not height > 0:
        raise SceneError(
            "--camera-height: the floor that was found lies above the cameras; say --known-distance instead"
        )
    factor = metres / height
    scale = {"known": True, "from": f"cameras held {metres:g} m above the floor, as was told", "factor": factor}
    frames = tuple(_scaled(frame, factor) for frame in scene.frames)
    return scene.replace(frames=frames, provenance={**scene.provenance, "scale": scale})


def _scaled(frame: Frame, factor: float) -> Frame:
    pose = frame.T_world_camera.copy()
    pose[:3, 3] *= factor
    load = None if frame.load_depth is None else functools.partial(_times, frame.load_depth, factor)
    return dataclasses.replace(frame, T_world_camera=pose, load_depth=load)


def _times(load: Any, factor: float) -> Float[np.ndarray, "rows cols"]:
    return (load() * factor).astype(np.float32)
