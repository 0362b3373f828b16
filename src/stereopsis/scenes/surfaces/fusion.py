"""A mesh for captures that come without one: depth images fused into a truncated signed distance field.

Each voxel keeps a running average of its signed distance to the surfaces that the depth images show along the
cameras' rays, cut off at a few voxels (Curless and Levoy, "A Volumetric Method for Building Complex Models from
Range Images", 1996); marching cubes finds where it passes zero. The extra ``fusion`` (scikit-image) is needed.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, UInt8

from stereopsis.errors import MissingExtraError, SceneError, check_ranges
from stereopsis.geometry.camera import Intrinsics, invert_pose, transform, unproject
from stereopsis.geometry.mesh import TriangleMesh
from stereopsis.scenes.alignment import colours_of_depth, frames_with_depth, spread_frames
from stereopsis.scenes.bad_frames import check_frame_pose
from stereopsis.scenes.scene import Frame, Scene

_STRAY = 0.005  # share of depth pixels that the extent may lose at each end of each axis
_SLAB_VOXELS = 1_000_000  # voxels that are projected at a time, which bounds the memory of a view
_PREVIEW = 80  # columns of the thinned depth images by which the extent is found


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """How depth images are fused.

    Attributes:
        voxel: side of the voxels, metres. Time and memory grow with its inverse cubed.
        truncation: distance at which signed distances are cut off, metres; None: four voxels. It should exceed
            the depth sensor's noise.
        max_depth: depth beyond it is ignored (sensors err there), metres.
        min_views: a voxel counts where at least this many views saw it; 2 or 3 removes stray pixels.
        max_frames: how many frames to use, evenly spread; None uses all.
        max_voxels: refuse larger grids (a voxel takes about 32 bytes).
    """

    voxel: float = 0.04
    truncation: float | None = None
    max_depth: float = 6.0
    min_views: int = 1
    max_frames: int | None = None
    max_voxels: int = 60_000_000

    def __post_init__(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            SceneError: a value is out of range.
        """
        ranges = {
            "voxel": (1e-3, 1.0),
            "max_depth": (0.1, 1e4),
            "min_views": (1, 10_000),
            "max_voxels": (1000, 10**10),
        }
        check_ranges(self, ranges)
        if self.truncation is not None and not self.voxel <= self.truncation < 10.0:
            raise SceneError(
                f"FusionConfig.truncation is {self.truncation}, expected at least one voxel ({self.voxel} m) and less "
                "than 10 m; change that setting"
            )

    @property
    def reach(self) -> float:
        """The truncation that is used, metres."""
        return 4 * self.voxel if self.truncation is None else self.truncation


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Volume:
    """The field, filled in place; index [i, j, k] is the voxel centre origin + voxel * (i, j, k), aligned frame."""

    origin: Float[np.ndarray, "3"]
    voxel: float
    distance: Float[np.ndarray, "nx ny nz"]
    views: Float[np.ndarray, "nx ny nz"]
    colour: Float[np.ndarray, "nx ny nz 3"]
    coloured: Float[np.ndarray, "nx ny nz"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _View:
    """One frame, ready to be averaged in: depth in metres, and the colour of each depth pixel where there is one."""

    depth: Float[np.ndarray, "height width"]
    camera: Intrinsics
    T_camera_aligned: Float[np.ndarray, "4 4"]
    colour: UInt8[np.ndarray, "height width 3"]
    coloured: Bool[np.ndarray, "height width"]


def fuse_scene(scene: Scene, config: FusionConfig | None = None) -> TriangleMesh:
    """Fuse a scene's depth images into a coloured mesh; the same input gives the same mesh.

    Surfaces face the cameras that saw them (corners run counter-clockwise as seen from there); what no view saw
    stays open. Labels are 0.

    Args:
        scene: aligned (z up makes the grid follow floor and walls), with depth.
        config: voxel size and limits; None: the defaults.

    Returns:
        The mesh in the (unaligned) world of the frames, metres, as `with_mesh_birdseye` takes it.

    Raises:
        FrameError: a frame's pose is not a finite rigid transform.
        SceneError: no depth, a grid that would be too large, or no surface in it.
        MissingExtraError: scikit-image is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise MissingExtraError("scikit-image", "fusion", "fusing depth images into a mesh") from error
    config = FusionConfig() if config is None else config
    frames = spread_frames(frames_with_depth(scene), config.max_frames)
    for frame in frames:
        check_frame_pose(frame.T_world_camera, f"scene '{scene.id}', frame '{frame.name}'")
    volume = _empty_volume(scene, frames, config)
    for frame in frames:
        _integrate(volume, scene, frame, config)
    known = volume.views >= config.min_views
    field = np.where(known, volume.distance, np.float32(1.0))
    if not (field < 0).any():
        raise SceneError(
            f"scene '{scene.id}': {len(frames)} depth images show no surface at {config.voxel:g} m voxels; expected "
            "overlapping views with valid depth; use smaller voxels, more frames or min_views=1"
        )
    # "descent" turns the faces' fronts to the positive side, which is the free space that the cameras look through.
    vertices, faces, _, _ = marching_cubes(field, level=0.0, gradient_direction="descent", allow_degenerate=False)
    faces = faces[_measured(vertices[faces].mean(axis=1), known)]
    if not len(faces):
        raise SceneError(
            f"scene '{scene.id}': no surface was seen by {config.min_views} views; lower FusionConfig.min_views"
        )
    aligned = TriangleMesh.from_faces(
        volume.origin + config.voxel * vertices.astype(np.float64), faces.astype(np.int64), _paint(volume, vertices)
    )
    return aligned.transformed(invert_pose(scene.T_aligned_world))


def _empty_volume(scene: Scene, frames: list[Frame], config: FusionConfig) -> _Volume:
    """A grid around everything that the frames show."""
    points = []
    for frame in frames:
        depth, camera = _depth(frame, config.max_depth)
        stride = max(1, camera.width // _PREVIEW)
        cloud = unproject(depth, camera, scene.T_aligned_camera(frame))
        points.append(cloud.points[::stride, ::stride][cloud.valid[::stride, ::stride]])
    seen = np.concatenate(points).astype(np.float64)
    if not len(seen):
        raise SceneError(
            f"scene '{scene.id}': no depth pixel between 0 and {config.max_depth:g} m; raise FusionConfig.max_depth"
        )
    low = np.quantile(seen, _STRAY, axis=0) - config.reach
    high = np.quantile(seen, 1 - _STRAY, axis=0) + config.reach
    shape = np.ceil((high - low) / config.voxel).astype(int) + 1
    count = int(np.prod(shape.astype(np.int64)))
    if count > config.max_voxels:
        raise SceneError(
            f"scene '{scene.id}': {' x '.join(f'{side:.1f}' for side in high - low)} m at {config.voxel:g} m voxels "
            f"are {count:,} voxels, more than FusionConfig.max_voxels = {config.max_voxels:,}; use larger voxels"
        )
    nx, ny, nz = (int(side) for side in shape)
    return _Volume(
        origin=low,
        voxel=config.voxel,
        distance=np.ones((nx, ny, nz), dtype=np.float32),
        views=np.zeros((nx, ny, nz), dtype=np.float32),
        colour=np.zeros((nx, ny, nz, 3), dtype=np.float32),
        coloured=np.zeros((nx, ny, nz), dtype=np.float32),
    )


def _depth(frame: Frame, max_depth: float) -> tuple[Float[np.ndarray, "height width"], Intrinsics]:
    """A frame's depth without what is too far, and the camera it belongs to."""
    depth = frame.depth()
    assert depth is not None
    return np.where(depth <= max_depth, depth, np.float32(0.0)), frame.depth_intrinsics or frame.intrinsics


def _integrate(volume: _Volume, scene: Scene, frame: Frame, config: FusionConfig) -> None:
    """Average one view into the part of the grid that it can see."""
    depth, camera = _depth(frame, config.max_depth)
    pose = scene.T_aligned_camera(frame)
    cloud = unproject(depth, camera, pose)
    if not cloud.valid.any():
        return
    seen = cloud.points[cloud.valid].astype(np.float64)
    corners = np.stack([np.minimum(seen.min(axis=0), pose[:3, 3]), np.maximum(seen.max(axis=0), pose[:3, 3])])
    first, last = np.floor((corners - volume.origin + np.array([[-1.0], [1.0]]) * config.reach) / volume.voxel)
    low = np.clip(first.astype(int), 0, volume.views.shape)
    high = np.clip(last.astype(int) + 2, 0, volume.views.shape)
    if (high <= low).any():
        return
    picked, coloured = colours_of_depth(frame.colour(), frame.intrinsics, camera)
    view = _View(depth=depth, camera=camera, T_camera_aligned=invert_pose(pose), colour=picked, coloured=coloured)
    thickness = max(1, _SLAB_VOXELS // int(np.prod(high[1:] - low[1:])))
    for start in range(int(low[0]), int(high[0]), thickness):
        stop = min(start + thickness, int(high[0]))
        _integrate_slab(
            volume, view, (start, int(low[1]), int(low[2])), (stop, int(high[1]), int(high[2])), config.reach
        )


def _integrate_slab(
    volume: _Volume, view: _View, low: tuple[int, int, int], high: tuple[int, int, int], reach: float
) -> None:
    """Average one view into the voxels low <= (i, j, k) < high."""
    camera = view.camera
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    local = transform(view.T_camera_aligned, volume.origin + volume.voxel * grid)
    z = local[..., 2]
    ahead = np.maximum(z, 1e-6)
    column = np.floor(camera.fx * local[..., 0] / ahead + camera.cx)
    row = np.floor(camera.fy * local[..., 1] / ahead + camera.cy)
    hit = (z > 1e-6) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    column, row = np.where(hit, column, 0).astype(int), np.where(hit, row, 0).astype(int)
    surface = view.depth[row, column]
    signed = surface - z
    # Behind the surface by more than the truncation lies what this view cannot know.
    hit &= (surface > 0) & (signed > -reach)
    new = np.minimum(signed / reach, 1.0)
    views = volume.views[part]
    volume.distance[part] = np.where(hit, (volume.distance[part] * views + new) / (views + 1), volume.distance[part])
    volume.views[part] += hit
    near = hit & (signed < reach) & view.coloured[row, column]
    volume.colour[part] += np.where(near[..., None], view.colour[row, column], 0)
    volume.coloured[part] += near


def _measured(centres: Float[np.ndarray, "faces 3"], known: Bool[np.ndarray, "nx ny nz"]) -> Bool[np.ndarray, "faces"]:
    """Which faces lie in a cube whose eight corners were all seen; others would only bound the unseen."""
    whole = known[:-1, :-1, :-1].copy()
    for i in range(8):
        whole &= known[tuple(slice(bit, bit - 1 or None) for bit in (i >> 2 & 1, i >> 1 & 1, i & 1))]
    cube = np.clip(np.floor(centres).astype(int), 0, np.array(whole.shape) - 1)
    return whole[cube[:, 0], cube[:, 1], cube[:, 2]]


def _paint(volume: _Volume, vertices: Float[np.ndarray, "vertices 3"]) -> np.ndarray:
    """RGB of the vertices: the mean of what was seen at the voxels around, nearer ones counting more."""
    from scipy.ndimage import map_coordinates

    at = vertices.T
    weight = map_coordinates(volume.coloured, at, order=1, mode="nearest")
    channels = [map_coordinates(volume.colour[..., c], at, order=1, mode="nearest") for c in range(3)]
    mean = np.stack(channels, axis=1) / np.maximum(weight, 1e-6)[:, None]
    return np.clip(np.rint(mean), 0, 255).astype(np.uint8)
