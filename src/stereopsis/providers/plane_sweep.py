"""Dense depth from pictures whose cameras are known: plane sweeping on the CPU, without weights.

Each picture is compared with a few neighbours along planes of equal depth (Collins 1996): where a neighbour, seen
through the right plane, looks the same (normalised cross-correlation over a window), there the surface lies. Costs are
made smooth along scan lines (semi-global matching, Hirschmueller 2008), and a depth is believed only where neighbours
measured the same place. Bare walls stay unknown: nothing in them says how far they are.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import Intrinsics, invert_pose
from stereopsis.providers.provider import EstimatedGeometry, EstimatedView, GeometryProvider, Picture

_BEST_PARALLAX = 0.12
"""Distance of two cameras over the middle depth at which neighbours tell most; a third to four times is fine."""
_MIN_FACING = 0.75
_LEAST_PLACES = 8
_OCCLUDED = 0.5
_SMALL_STEP, _LARGE_STEP = 0.04, 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlaneSweep(GeometryProvider):
    """See the module's docstring.

    Attributes:
        columns: of the depth images along the longer side, pixels.
        planes: depths that are tried, evenly in their inverse.
        neighbours: pictures that each is compared with, at most.
        window: side of the compared windows, pixels; odd.
        tolerance: two measurements agree up to this share of the depth.
        least_agreeing: neighbours that must measure the same place.
    """

    name = "plane_sweep"
    gives_poses = False

    columns: int = 192
    planes: int = 96
    neighbours: int = 5
    window: int = 5
    tolerance: float = 0.03
    least_agreeing: int = 2

    def check(self) -> None:
        """Needs nothing but torch."""

    @torch.no_grad()
    def estimate(
        self, pictures: Sequence[Picture], *, in_order: bool, known: EstimatedGeometry | None = None
    ) -> EstimatedGeometry:
        """See `GeometryProvider.estimate`; needs ``known`` cameras with ``places``."""
        if known is None:
            raise SceneError("plane_sweep needs cameras: name who estimates them, e.g. --geometry colmap+plane_sweep")
        everywhere = np.concatenate([view.places[:, 2] for view in known.views.values()])
        views = [_view(picture, known.views[picture.name], self.columns, everywhere) for picture in pictures]
        near = [self._near(n, views) for n in range(len(views))]
        found = [self._swept(view, [views[m] for m in near[n]]) for n, view in enumerate(views)]
        answers = {}
        for n, picture in enumerate(pictures):
            agree = torch.zeros_like(found[n], dtype=torch.int64)
            for m in near[n]:
                agree += _agrees(found[n], views[n], found[m], views[m], self.tolerance)
            least = min(self.least_agreeing, max(1, len(near[n])))
            answers[picture.name] = dataclasses.replace(
                known.views[picture.name], depth=found[n].numpy(), valid=(agree >= least).numpy()
            )
        blind = [picture.name for n, picture in enumerate(pictures) if not near[n]]
        notes = {"plane_sweep": {"columns": self.columns, "planes": self.planes, "without_neighbours": blind}}
        return EstimatedGeometry(views=answers, metric=known.metric, left_out=known.left_out, notes=notes)

    def _near(self, n: int, views: "Sequence[_View]") -> list[int]:
        here = views[n]
        rated = []
        for m, other in enumerate(views):
            parallax = float((other.centre - here.centre).norm()) / here.middle
            facing = float(other.axis @ here.axis)
            if m != n and facing >= _MIN_FACING and _BEST_PARALLAX / 3 <= parallax <= _BEST_PARALLAX * 4:
                rated.append((abs(float(np.log(parallax / _BEST_PARALLAX))) + 2 * (1 - facing), m))
        return [m for _, m in sorted(rated)[: self.neighbours]]

    def _swept(self, view: "_View", near: "Sequence[_View]") -> Float[Tensor, "rows cols"]:
        """z-depth; 0 where there is nobody to compare with."""
        rows, cols = view.grey.shape
        if not near:
            return torch.zeros(rows, cols)
        inverse = torch.linspace(1 / view.far, 1 / view.close, self.planes)
        alike = torch.stack([self._alike(view, other, inverse) for other in near])
        kept = max(1, round(len(near) * _OCCLUDED))
        best = alike.topk(kept, dim=0).values.mean(dim=0)  # [planes rows cols]; the others may be hidden there
        cost = _smooth(1 - best.clamp(-0.2, 1))
        index = cost.argmin(dim=0)
        inner = index.clamp(1, self.planes - 2)
        a, b, c = (cost.gather(0, (inner + step)[None])[0] for step in (-1, 0, 1))
        shift = ((a - c) / (2 * (a - 2 * b + c)).clamp(min=1e-6)).clamp(-0.5, 0.5)
        place = torch.where(index == inner, inner + shift, index.float())
        step = (inverse[-1] - inverse[0]) / (self.planes - 1)
        return 1 / (inverse[0] + step * place)

    def _alike(self, view: "_View", other: "_View", inverse: Tensor) -> Float[Tensor, "planes rows cols"]:
        """Correlation, -1 to 1, of windows of a view with the other's behind each plane; -0.2 outside of it."""
        turn, move = view.towards(other)
        rays = view.rays()
        at = (rays @ turn.T)[None] + inverse[:, None, None, None] * move  # [planes rows cols 3], up to scale
        ahead = at[..., 2].clamp(min=1e-6)
        rows, cols = other.grey.shape
        x = (at[..., 0] / ahead * other.fx + other.cx) / cols * 2 - 1
        y = (at[..., 1] / ahead * other.fy + other.cy) / rows * 2 - 1
        seen = (at[..., 2] > 1e-6) & (x.abs() < 1) & (y.abs() < 1)
        image = other.grey.expand(len(inverse), 1, rows, cols)
        warped = functional.grid_sample(image, torch.stack([x, y], dim=-1), align_corners=False)[:, 0]
        return torch.where(seen, correlation(view.grey, warped, self.window), torch.tensor(-0.2))


def correlation(
    grey: Float[Tensor, "rows cols"], warped: Float[Tensor, "planes rows cols"], window: int
) -> Float[Tensor, "planes rows cols"]:
    """Normalised cross-correlation over square windows; near 0 where either shows nothing."""

    def mean(values: Tensor) -> Tensor:
        flat = values.reshape(-1, 1, *values.shape[-2:])
        padded = functional.pad(flat, [window // 2] * 4, mode="replicate")
        return functional.avg_pool2d(padded, window, stride=1).reshape(values.shape)

    m, n = mean(grey), mean(warped)
    spread = (mean(grey * grey) - m * m).clamp(min=0) * (mean(warped * warped) - n * n).clamp(min=0)
    return (mean(grey * warped) - m * n) / (spread.sqrt() + 4.0)  # 4 grey levels squared: noise must not correlate


def _smooth(cost: Float[Tensor, "planes rows cols"]) -> Float[Tensor, "planes rows cols"]:
    """Semi-global matching along rows and columns, both ways."""
    total = torch.zeros_like(cost)
    for axis in (1, 2):
        for turned in (False, True):
            lines = cost.movedim(axis, 0)
            lines = lines.flip(0) if turned else lines
            paths = [lines[0]]
            for line in lines[1:]:
                last = paths[-1]
                least = last.min(dim=0, keepdim=True).values
                up = functional.pad(last[1:], (0, 0, 0, 1), value=9.0) + _SMALL_STEP
                down = functional.pad(last[:-1], (0, 0, 1, 0), value=9.0) + _SMALL_STEP
                jump = (least + _LARGE_STEP).expand_as(last)
                paths.append(line + torch.stack([last, up, down, jump]).min(dim=0).values - least)
            path = torch.stack(paths)
            total += (path.flip(0) if turned else path).movedim(0, axis)
    return total


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _View:
    """One picture, small and grey, with its camera."""

    grey: Float[Tensor, "rows cols"]
    fx: float
    fy: float
    cx: float
    cy: float
    pose: Float[Tensor, "4 4"]
    close: float
    middle: float
    far: float

    @property
    def centre(self) -> Float[Tensor, "3"]:
        return self.pose[:3, 3]

    @property
    def axis(self) -> Float[Tensor, "3"]:
        return self.pose[:3, 2]

    def towards(self, other: "_View") -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
        """From this camera's frame to the other's."""
        back = torch.from_numpy(invert_pose(other.pose.double().numpy())).float() @ self.pose
        return back[:3, :3], back[:3, 3]

    def rays(self) -> Float[Tensor, "rows cols 3"]:
        rows, cols = self.grey.shape
        x = (torch.arange(cols) + 0.5 - self.cx) / self.fx
        y = (torch.arange(rows) + 0.5 - self.cy) / self.fy
        return torch.stack([x.expand(rows, cols), y[:, None].expand(rows, cols), torch.ones(rows, cols)], dim=-1)


def _view(picture: Picture, known: EstimatedView, columns: int, everywhere: np.ndarray) -> _View:
    if known.T_world_camera is None:
        raise SceneError(f"{picture.name}: plane_sweep needs its camera; combine it with a provider that gives poses")
    small = sized(known.intrinsics, columns)
    grey = torch.from_numpy(picture.colour()).float().mean(dim=-1)[None, None]
    if tuple(grey.shape[-2:]) != (small.height, small.width):
        grey = functional.interpolate(grey, size=(small.height, small.width), mode="bilinear", antialias=True)
    close, middle, far = _range(known.places[:, 2], everywhere)
    return _View(
        grey=grey[0, 0],
        fx=small.fx,
        fy=small.fy,
        cx=small.cx,
        cy=small.cy,
        pose=torch.from_numpy(known.T_world_camera).float(),
        close=close,
        middle=middle,
        far=far,
    )


def sized(camera: Intrinsics, columns: int) -> Intrinsics:
    """Intrinsics of the picture at so many pixels along its longer side (never more than it has)."""
    scale = min(1.0, columns / max(camera.width, camera.height))
    return camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))


def _range(own: np.ndarray, everywhere: np.ndarray) -> tuple[float, float, float]:
    """Least, middle and largest depth to look at; surfaces go on beyond the points that are sure."""
    depths = own if len(own) >= _LEAST_PLACES else everywhere
    if len(depths) < _LEAST_PLACES:
        raise SceneError(
            f"plane_sweep knows {len(depths)} sure points and needs {_LEAST_PLACES} to tell which depths to try; "
            "combine it with a provider that gives some, e.g. --geometry colmap+plane_sweep"
        )
    low, middle, high = np.percentile(depths, [2, 50, 98])
    return float(low) * 0.6, float(middle), float(high) * 1.6


def _agrees(
    depth: Tensor, view: _View, other_depth: Tensor, other: _View, tolerance: float
) -> Bool[Tensor, "rows cols"]:
    """Where the other view measured what this one did."""
    turn, move = view.towards(other)
    at = (view.rays() * depth[..., None]) @ turn.T + move
    ahead = at[..., 2].clamp(min=1e-6)
    rows, cols = other_depth.shape
    x = (at[..., 0] / ahead * other.fx + other.cx).floor().long()
    y = (at[..., 1] / ahead * other.fy + other.cy).floor().long()
    inside = (at[..., 2] > 1e-6) & (x >= 0) & (x < cols) & (y >= 0) & (y < rows)
    there = other_depth[y.clamp(0, rows - 1), x.clamp(0, cols - 1)]
    return inside & (depth > 0) & ((there - at[..., 2]).abs() <= tolerance * at[..., 2])
