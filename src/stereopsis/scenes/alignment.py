"""Turning a scene upright where its source does not, and looking at it from above.

A hand-held capture's world frame is its first camera's; a bird's-eye view (Ross3D's global view) or boxes
that are aligned with the axes make sense only after gravity and the walls have been found.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from stereopsis.errors import SceneError
from stereopsis.geometry.birdseye import splat_birdseye
from stereopsis.geometry.birdseye_mesh import raycast_birdseye
from stereopsis.geometry.camera import Intrinsics, unproject
from stereopsis.geometry.gravity import Alignment, estimate_alignment, up_from_cameras
from stereopsis.geometry.mesh import TriangleMesh
from stereopsis.geometry.normals import estimate_normals
from stereopsis.scenes.scene import Frame, Scene


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AlignedScene:
    """A scene that stands upright, and how that came about.

    Attributes:
        scene: with its ``T_aligned_world``; ``provenance["alignment"]`` tells "given" or the estimate's
            numbers.
        alignment: the estimate; None where the source gave the alignment.
    """

    scene: Scene
    alignment: Alignment | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ColouredPoints:
    """A point cloud.

    Attributes:
        points: [n, 3] metres.
        colours: uint8 [n, 3].
    """

    points: Float[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"]


def has_alignment(scene: Scene) -> bool:
    """Whether the source gave the aligned frame: by a matrix, or by boxes that are expressed in it."""
    given = not np.array_equal(scene.T_aligned_world, np.eye(4))
    return given or bool(scene.objects or scene.proposals) or "alignment" in scene.provenance


def align_scene(scene: Scene, *, max_frames: int = 40, stride: int | None = None) -> AlignedScene:
    """Find the upright frame of a scene whose source gives none; otherwise leave the scene as it is.

    A scene counts as aligned where ``T_aligned_world`` is not the identity, where it has objects or
    proposals (their boxes ARE in the aligned frame), or where an earlier alignment is on record. The
    estimate uses normals of the depth images and, as a first guess of up, how people hold cameras.

    Args:
        scene: with depth, unless its alignment is given.
        max_frames: how many frames to use, evenly spread.
        stride: every how many depth pixels to use, along rows and columns; None takes about 160 columns.

    Raises:
        SceneError: there is no depth, or no horizontal surface can be found.
    """
    if has_alignment(scene):
        provenance = {"alignment": {"method": "given"}, **scene.provenance}
        return AlignedScene(scene=scene.replace(provenance=provenance), alignment=None)
    frames = spread_frames(frames_with_depth(scene), max_frames)
    stride = _stride(scene, 160) if stride is None else stride
    points, normals = [], []
    for frame in frames:
        depth, camera = thinned_depth(frame, stride)
        cloud = unproject(depth, camera, frame.T_world_camera)
        # About 6 pixels' reach at 640 columns smooths the sensor's noise; keep that angle in smaller images.
        surface = estimate_normals(cloud.points, cloud.valid, radius=max(1, round(camera.width * 6 / 640)))
        points.append(cloud.points[surface.valid])
        normals.append(surface.normals[surface.valid])
    hint = up_from_cameras(np.stack([frame.T_world_camera for frame in scene.frames]))
    try:
        alignment = estimate_alignment(np.concatenate(points), np.concatenate(normals), hint)
    except ValueError as error:
        raise SceneError(
            f"scene '{scene.id}' cannot be aligned: {error}; give it an alignment yourself with "
            "scene.replace(T_aligned_world=...)"
        ) from error
    facts = {
        "method": "estimated",
        "frames": len(frames),
        "confidence": alignment.confidence,
        "floor_inliers": alignment.floor_inliers,
        "horizontal_share": alignment.horizontal_share,
        "wall_share": alignment.wall_share,
    }
    aligned = scene.replace(
        T_aligned_world=alignment.T_aligned_world, provenance={**scene.provenance, "alignment": facts}
    )
    return AlignedScene(scene=aligned, alignment=alignment)


def scene_points(scene: Scene, *, max_frames: int | None = None, stride: int = 1) -> ColouredPoints:
    """The scene's coloured points in the aligned frame, from its depth images.

    Where colour and depth images differ in size or lens, each depth pixel takes the colour that its ray
    meets (one camera centre is assumed for both); rays outside the colour image are left out.

    Args:
        scene: with depth.
        max_frames: how many frames to use, evenly spread; None uses all.
        stride: every how many depth pixels to use, along rows and columns.

    Raises:
        SceneError: no frame has depth.
    """
    points, colours = [], []
    for frame in spread_frames(frames_with_depth(scene), max_frames):
        depth, camera = thinned_depth(frame, stride)
        cloud = unproject(depth, camera, scene.T_aligned_camera(frame))
        colour, seen = colours_of_depth(frame.colour(), frame.intrinsics, camera)
        keep = cloud.valid & seen
        whole = bool(keep.all())
        points.append(cloud.points.reshape(-1, 3) if whole else cloud.points[keep])
        colours.append(colour.reshape(-1, 3) if whole else colour[keep])
    return ColouredPoints(points=np.concatenate(points), colours=np.concatenate(colours))


def with_birdseye(
    scene: Scene,
    *,
    size: int = 432,
    max_frames: int | None = 128,
    stride: int | None = None,
    extent: tuple[float, float, float, float] | None = None,
    ceiling: float | Literal["auto"] | None = "auto",
    fill_radius: float = 0.0,
) -> Scene:
    """The scene with its view from above, splatted from its depth images in the aligned frame.

    Args:
        scene: aligned, with depth.
        size: pixels along each side; Ross3D's is 432.
        max_frames: how many frames to use, evenly spread; None uses all.
        stride: every how many depth pixels to use, along rows and columns; None takes about 320 columns,
            which leaves no gaps at 1 cm per pixel within 3 m of the cameras.
        extent: (x_min, y_min, x_max, y_max) to show, metres; None: the points' own.
        ceiling: height above which nothing is drawn, metres; "auto" finds a ceiling, None draws everything.
        fill_radius: pixels; gaps up to about twice this width take the nearest seen colour. Small images (96
            pixels wide, say) leave gaps at 432 pixels; choose a smaller size or a radius of 3 to 5 there.

    Raises:
        SceneError: no frame has depth, or there is nothing to see.
    """
    stride = _stride(scene, 320) if stride is None else stride
    cloud = scene_points(scene, max_frames=max_frames, stride=stride)
    try:
        view = splat_birdseye(
            cloud.points, cloud.colours, size=size, extent=extent, ceiling=ceiling, fill_radius=fill_radius
        )
    except ValueError as error:
        raise SceneError(
            f"scene '{scene.id}' cannot be drawn from above: {error}; check its depth images and its alignment"
        ) from error
    return scene.replace(birdseye=view)


def with_mesh_birdseye(
    scene: Scene,
    mesh: TriangleMesh,
    *,
    size: int = 432,
    extent: tuple[float, float, float, float] | None = None,
    ceiling: float | Literal["auto"] | None = "auto",
    fill_radius: float = 0.0,
) -> Scene:
    """The scene with its view from above, drawn from a mesh by vertical rays.

    Args:
        scene: aligned.
        mesh: in the (unaligned) world of the scene's frames, metres; its labels become the view's.
        size: pixels along each side; Ross3D's is 432.
        extent: (x_min, y_min, x_max, y_max) to show, aligned frame, metres; None: the mesh's own.
        ceiling: height above which nothing is drawn, metres; "auto" finds a ceiling, None draws everything.
        fill_radius: pixels; gaps up to about twice this width take the nearest seen colour.

    Raises:
        SceneError: there is nothing to see.
        MissingExtraError: embreex is not installed.
    """
    try:
        view = raycast_birdseye(
            mesh.transformed(scene.T_aligned_world),
            size=size,
            extent=extent,
            ceiling=ceiling,
            fill_radius=fill_radius,
        )
    except ValueError as error:
        raise SceneError(
            f"scene '{scene.id}' cannot be drawn from above: {error}; check its mesh and its alignment"
        ) from error
    return scene.replace(birdseye=view)


def _stride(scene: Scene, columns: int) -> int:
    camera = scene.frames[0].depth_intrinsics or scene.frames[0].intrinsics
    return max(1, camera.width // columns)


def frames_with_depth(scene: Scene) -> list[Frame]:
    """The frames that have depth.

    Raises:
        SceneError: none has.
    """
    frames = [frame for frame in scene.frames if frame.load_depth is not None]
    if not frames:
        raise SceneError(
            f"scene '{scene.id}': none of its {len(scene.frames)} frames has depth; alignment and "
            "bird's-eye view need depth images; add them, or set T_aligned_world and birdseye yourself"
        )
    return frames


def spread_frames(frames: Sequence[Frame], count: int | None) -> list[Frame]:
    """That many frames, evenly spread from the first to the last; None: all."""
    if count is None or count >= len(frames):
        return list(frames)
    return [frames[index] for index in np.linspace(0, len(frames) - 1, count).astype(int)]


def thinned_depth(frame: Frame, stride: int) -> tuple[Float[np.ndarray, "height width"], Intrinsics]:
    """Every stride-th depth pixel, and the intrinsics under which these pixels keep their rays exactly.

    Args:
        frame: one with depth.
        stride: along rows and columns.
    """
    depth = frame.depth()
    assert depth is not None
    camera = frame.depth_intrinsics or frame.intrinsics
    thin = depth[::stride, ::stride]
    # Pixel i of the thinned image is pixel stride * i:
    # i + 0.5 - cx' must equal (stride * i + 0.5 - cx) / stride.
    return thin, Intrinsics(
        fx=camera.fx / stride,
        fy=camera.fy / stride,
        cx=0.5 + (camera.cx - 0.5) / stride,
        cy=0.5 + (camera.cy - 0.5) / stride,
        width=thin.shape[1],
        height=thin.shape[0],
    )


def colours_of_depth(
    colour: np.ndarray, camera: Intrinsics, depth_camera: Intrinsics
) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """The colour that each depth pixel's ray meets, and whether it meets the colour image at all.

    One camera centre is assumed for both images.

    Args:
        colour: the colour image.
        camera: its intrinsics.
        depth_camera: intrinsics of the depth image.
    """
    across = (np.arange(depth_camera.width) + 0.5 - depth_camera.cx) / depth_camera.fx
    down = (np.arange(depth_camera.height) + 0.5 - depth_camera.cy) / depth_camera.fy
    columns = np.floor(across * camera.fx + camera.cx + 1e-6).astype(int)
    rows = np.floor(down * camera.fy + camera.cy + 1e-6).astype(int)
    inside_column = (columns >= 0) & (columns < camera.width)
    inside_row = (rows >= 0) & (rows < camera.height)
    if np.array_equal(columns, np.arange(camera.width)) and np.array_equal(rows, np.arange(camera.height)):
        return colour, inside_row[:, None] & inside_column[None, :]  # pixel for pixel: no copy
    picked = colour[np.clip(rows, 0, camera.height - 1)][:, np.clip(columns, 0, camera.width - 1)]
    return picked, inside_row[:, None] & inside_column[None, :]
