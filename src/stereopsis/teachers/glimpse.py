"""Thumbnails, cameras and depths of the frames that a teacher saw: how a cache knows that a student sees the same."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

SIDE = 16
LEVELS = 2  # of 255: what another JPEG decoder may change in a thumbnail
POSE = 1e-3  # metres, and entries of the rotation
PIXELS = 0.01  # of focal lengths and principal points, as a share
METRES = 0.02  # of the mean point of a view
SHARE = 0.05  # of cells with depth


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Glimpse:
    """What is remembered of some frames.

    Attributes:
        names: frame names.
        thumbs: [views 3 16 16] mean colours.
        cameras: [views 4 4] camera to aligned frame.
        intrinsics: [views 3 3] pixels.
        points: [views 4] mean point of the cells with depth, metres, and the share of such cells.
    """

    names: tuple[str, ...]
    thumbs: UInt8[Tensor, "views 3 side side"]
    cameras: Float[Tensor, "views 4 4"]
    intrinsics: Float[Tensor, "views 3 3"]
    points: Float[Tensor, "views 4"]

    @staticmethod
    def of(
        names: Sequence[str],
        images: UInt8[Tensor, "views 3 height width"],
        cameras: Float[Tensor, "views 4 4"],
        intrinsics: Float[Tensor, "views 3 3"],
        points: Float[Tensor, "views rows cols 3"],
        points_valid: Bool[Tensor, "views rows cols"],
    ) -> "Glimpse":
        """Look at some frames."""
        count = points_valid.flatten(1).sum(1)
        total = points.double().where(points_valid[..., None], 0.0).flatten(1, 2).sum(1)
        mean = total / count.clamp(min=1)[:, None]
        share = count / points_valid[0].numel() if len(points_valid) else count.float()
        return Glimpse(
            names=tuple(names),
            thumbs=thumbnails(images),
            cameras=cameras.float().clone(),
            intrinsics=intrinsics.float().clone(),
            points=torch.cat([mean, share[:, None]], dim=1).float(),
        )

    @staticmethod
    def from_tensors(names: Sequence[str], tensors: Mapping[str, Tensor]) -> "Glimpse":
        """The inverse of `tensors`."""
        return Glimpse(names=tuple(names), **{key: tensors[f"glimpse.{key}"] for key in _FIELDS})

    def tensors(self) -> dict[str, Tensor]:
        """To be stored."""
        return {f"glimpse.{key}": getattr(self, key) for key in _FIELDS}

    def select(self, indices: Sequence[int]) -> "Glimpse":
        """Some of the frames."""
        chosen = torch.as_tensor(list(indices), dtype=torch.int64)
        parts = {key: getattr(self, key)[chosen] for key in _FIELDS}
        return Glimpse(names=tuple(self.names[i] for i in indices), **parts)

    def joined(self, other: "Glimpse") -> "Glimpse":
        """These frames, then the other ones."""
        parts = {key: torch.cat([getattr(self, key), getattr(other, key)]) for key in _FIELDS}
        return Glimpse(names=(*self.names, *other.names), **parts)

    def difference(self, seen: "Glimpse", *, geometry: bool) -> str | None:
        """In words, the first respect in which frames of the same names differ; None where they do not.

        Args:
            seen: what somebody else sees under the same names, in the same order.
            geometry: compare cameras, intrinsics and depth, too (a teacher that sees pictures alone does not care).
        """
        levels = (self.thumbs.int() - seen.thumbs.int()).abs().flatten(1).amax(1)
        if (wrong := _first(levels > LEVELS)) is not None:
            others = (self.thumbs.int() - seen.thumbs[wrong].int()).abs().flatten(1).amax(1)
            twin = _first(others <= LEVELS)
            looks = "" if twin is None else f"; it looks like the frame that was cached as '{self.names[twin]}'"
            return f"frame '{self.names[wrong]}' shows another picture (or another crop of it){looks}"
        if not geometry:
            return None
        lens = (self.intrinsics - seen.intrinsics).abs().flatten(1).amax(1)
        checks = (
            ("stands at another pose", (self.cameras - seen.cameras).abs().flatten(1).amax(1) > POSE),
            ("has other intrinsics (another crop)", lens > PIXELS * self.intrinsics.flatten(1).amax(1)),
            ("has another depth", (self.points[:, :3] - seen.points[:, :3]).abs().amax(1) > METRES),
            ("has depth in other places", (self.points[:, 3] - seen.points[:, 3]).abs() > SHARE),
        )
        for what, mask in checks:
            if (wrong := _first(mask)) is not None:
                return f"frame '{self.names[wrong]}' {what}"
        return None


_FIELDS = ("thumbs", "cameras", "intrinsics", "points")


def thumbnails(images: UInt8[Tensor, "views 3 height width"]) -> UInt8[Tensor, "views 3 side side"]:
    """Mean colours of 16 x 16 areas of each picture."""
    if not len(images):
        return images.new_zeros(0, 3, SIDE, SIDE)
    # one at a time: as floats, a scene's pictures would take four times their room
    small = [functional.adaptive_avg_pool2d(image[None].float(), (SIDE, SIDE)) for image in images]
    return torch.cat(small).round().to(torch.uint8)


def _first(mask: Bool[Tensor, "views"]) -> int | None:
    found = mask.nonzero().flatten().tolist()
    return found[0] if found else None
