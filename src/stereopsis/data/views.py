"""Decoded views: colour, per-pixel 3D points and cameras, resized by one function so that they stay registered."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from stereopsis.errors import FrameError
from stereopsis.geometry import Intrinsics, patch_coordinates, unproject
from stereopsis.scenes.scene import Frame, Scene

Fit = Literal["crop", "squash"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """V decoded frames of one scene, all of one size, in the aligned frame.

    Attributes:
        names: frame names, in order.
        images: [views 3 height width] RGB.
        points: [views height width 3] aligned-frame coordinates of every pixel centre, metres (0 where invalid).
        points_valid: [views height width] False where depth is missing.
        cameras: [views 4 4] camera to aligned frame.
        intrinsics: [views 3 3] of the resized images.
    """

    names: tuple[str, ...]
    images: UInt8[Tensor, "views 3 height width"]
    points: Float[Tensor, "views height width 3"]
    points_valid: Bool[Tensor, "views height width"]
    cameras: Float[Tensor, "views 4 4"]
    intrinsics: Float[Tensor, "views 3 3"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ResizedFrame:
    """A frame's pixels after `resize_frame`."""

    colour: UInt8[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "height width"]
    intrinsics: Intrinsics


def resize_frame(frame: Frame, size: int, fit: Fit) -> ResizedFrame:
    """Resize colour (bicubic), depth (nearest) and intrinsics of a frame together to ``size`` x ``size``.

    ``crop`` scales the shorter side to ``size`` and crops the centre (Video-3D-LLM, Ross3D); ``squash`` resizes
    without regard to the aspect (3DRS, a wider field of view). A frame without depth gets zeros (= invalid), and
    so does what a depth camera with another lens does not see.

    Raises:
        FrameError: the colour image's size is not the one that the intrinsics speak of.
    """
    colour = frame.colour()
    K = frame.intrinsics
    if colour.shape[:2] != (K.height, K.width):
        raise FrameError(
            f"frame '{frame.name}': the colour image is {colour.shape[1]}x{colour.shape[0]} but its intrinsics are "
            f"for {K.width}x{K.height}; correct the intrinsics file or the image"
        )
    depth = frame.depth()
    if fit == "squash":
        width = height = size
    else:
        scale = size / min(K.width, K.height)
        width, height = max(size, round(K.width * scale)), max(size, round(K.height * scale))
    left, top = (width - size) // 2, (height - size) // 2
    box = (left, top, left + size, top + size)
    if (width, height) == (K.width, K.height):
        small = np.ascontiguousarray(colour[top : top + size, left : left + size])
    else:
        small = np.asarray(Image.fromarray(colour).resize((width, height), Image.Resampling.BICUBIC).crop(box))
    resized = K.resized(width, height).cropped(left, top, size, size)
    if depth is None:
        small_depth = np.zeros((size, size), dtype=np.float32)
    elif frame.depth_intrinsics is None:
        rows = ((np.arange(height) + 0.5) * depth.shape[0] / height).astype(np.int64)
        cols = ((np.arange(width) + 0.5) * depth.shape[1] / width).astype(np.int64)
        small_depth = depth[rows[top : top + size, None], cols[None, left : left + size]].astype(np.float32)
    else:
        small_depth = _depth_along_rays(depth, frame.depth_intrinsics, resized)
    return ResizedFrame(colour=small, depth=small_depth, intrinsics=resized)


def _depth_along_rays(
    depth: Float[np.ndarray, "height width"], camera: Intrinsics, target: Intrinsics
) -> Float[np.ndarray, "rows cols"]:
    """The depth camera's nearest pixel on each ray of another lens at the same place; 0 where it sees nothing."""
    u = (np.arange(target.width) + 0.5 - target.cx) / target.fx * camera.fx + camera.cx
    v = (np.arange(target.height) + 0.5 - target.cy) / target.fy * camera.fy + camera.cy
    cols, rows = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    seen = ((rows >= 0) & (rows < depth.shape[0]))[:, None] & ((cols >= 0) & (cols < depth.shape[1]))
    picked = depth[rows.clip(0, depth.shape[0] - 1)[:, None], cols.clip(0, depth.shape[1] - 1)]
    return np.where(seen, picked, 0.0).astype(np.float32)


def decode_views(scene: Scene, indices: Sequence[int], *, size: int, fit: Fit = "crop") -> Views:
    """Decode some frames of a scene at one size.

    Args:
        scene: where the frames come from.
        indices: which frames, in order.
        size: side of the square images, pixels.
        fit: see `resize_frame`.

    Raises:
        FrameError: an image or a depth map cannot be used.
    """
    images, points, valid, cameras, matrices, names = [], [], [], [], [], []
    for index in indices:
        frame = scene.frames[index]
        resized = resize_frame(frame, size, fit)
        T = scene.T_aligned_camera(frame)
        point_map = unproject(resized.depth, resized.intrinsics, T)
        images.append(torch.from_numpy(resized.colour.copy()).permute(2, 0, 1))
        points.append(torch.from_numpy(np.where(point_map.valid[..., None], point_map.points, 0.0).astype(np.float32)))
        valid.append(torch.from_numpy(point_map.valid))
        cameras.append(torch.from_numpy(T.astype(np.float32)))
        matrices.append(torch.from_numpy(resized.intrinsics.matrix.astype(np.float32)))
        names.append(frame.name)
    return Views(
        names=tuple(names),
        images=torch.stack(images),
        points=torch.stack(points),
        points_valid=torch.stack(valid),
        cameras=torch.stack(cameras),
        intrinsics=torch.stack(matrices),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CellCoordinates:
    """Per-cell aligned-frame coordinates of every view: [views rows cols 3] metres, and their validity."""

    coordinates: Float[Tensor, "views rows cols 3"]
    valid: Bool[Tensor, "views rows cols"]


def cell_coordinates(views: Views, rows: int, cols: int) -> CellCoordinates:
    """Mean 3D point of each cell of a ``rows`` x ``cols`` grid over the views (Video-3D-LLM's patch coordinates)."""
    maps = [
        patch_coordinates(points, valid, rows, cols)
        for points, valid in zip(views.points.numpy(), views.points_valid.numpy(), strict=True)
    ]
    return CellCoordinates(
        coordinates=torch.from_numpy(np.stack([m.coordinates for m in maps]).astype(np.float32)),
        valid=torch.from_numpy(np.stack([m.valid for m in maps])),
    )


def cells_in_boxes(
    views: Views, boxes: Float[np.ndarray, "boxes 6"], rows: int, cols: int, fraction: float = 0.5
) -> Bool[Tensor, "boxes views rows cols"]:
    """Which cells lie in which boxes: at least ``fraction`` of the cell's pixels have their 3D point inside.

    The rule by which Video-3D-LLM gathers a proposal's features (docs/papers.md). The number
    of pixels is rounded down, as released: an eighth of 27 x 27 is 91.
    """
    points, valid = views.points.numpy(), views.points_valid.numpy()
    height, width = points.shape[1] // rows * rows, points.shape[2] // cols * cols
    points, valid = points[:, :height, :width], valid[:, :height, :width]
    needed = max(1, int(height // rows * (width // cols) * fraction))
    cells = np.zeros((len(boxes), len(points), rows, cols), dtype=bool)
    for number, box in enumerate(boxes):
        low, high = box[:3] - box[3:] / 2, box[:3] + box[3:] / 2
        inside = valid & ((points >= low) & (points <= high)).all(-1)
        count = inside.reshape(len(points), rows, height // rows, cols, width // cols).sum((2, 4))
        cells[number] = count >= needed
    return torch.from_numpy(cells)


def perturb_coordinates(
    cells: CellCoordinates,
    cameras: Float[Tensor, "views 4 4"],
    generator: torch.Generator,
    *,
    depth_scale: float = 0.05,
    rotation_degrees: float = 3.0,
    translation: float = 0.10,
) -> CellCoordinates:
    """Coordinates as an uncalibrated sensor would give them: per view a depth scale error and a pose error.

    Each view's depth is scaled by 1 + N(0, ``depth_scale``), its camera turned by a rotation vector of
    N(0, ``rotation_degrees``) per axis and moved by N(0, ``translation``) metres per axis.
    """
    number = len(cameras)
    scale = 1 + depth_scale * torch.randn(number, generator=generator)
    turn = torch.deg2rad(torch.tensor(rotation_degrees)) * torch.randn(number, 3, generator=generator)
    move = translation * torch.randn(number, 3, generator=generator)
    skew = torch.zeros(number, 3, 3)
    skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -turn[:, 2], turn[:, 1], -turn[:, 0]
    error = torch.linalg.matrix_exp(skew - skew.transpose(1, 2))
    R, t = cameras[:, :3, :3], cameras[:, :3, 3]
    local = torch.einsum("vij,vrci->vrcj", R, cells.coordinates - t[:, None, None])
    local = torch.einsum("vij,vrcj->vrci", error, local * scale[:, None, None, None])
    moved = torch.einsum("vij,vrcj->vrci", R, local) + (t + move)[:, None, None]
    return CellCoordinates(coordinates=torch.where(cells.valid[..., None], moved, cells.coordinates), valid=cells.valid)
