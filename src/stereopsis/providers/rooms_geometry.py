"""The small network that ships with the package: cameras and depth in metres, without any download.

It was trained on this package's procedural rooms alone and is good for those; of real rooms it knows little. It sees
square views; wider pictures are squashed. More views than it takes at once go through in windows that share views, and
each window is laid onto the one before by what the shared views say.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from stereopsis.providers.networks import rigid, view_of
from stereopsis.providers.provider import EstimatedGeometry, EstimatedView, GeometryProvider, Picture, check_enough
from stereopsis.teachers.geometry_cameras import matched_cameras
from stereopsis.teachers.geometry_network import GeometryNetwork
from stereopsis.teachers.geometry_teacher import load_geometry_network, rooms_geometry_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoomsGeometry(GeometryProvider):
    """See the module's docstring.

    Attributes:
        window: views that are looked at together.
        shared: of them, how many the next window sees again.
        tolerance: depth and point map may differ by this share of the depth where depth is believed.
    """

    name = "rooms_geometry"

    window: int = 8
    shared: int = 3
    tolerance: float = 0.25

    def check(self) -> None:
        """Ships with the package."""

    @torch.no_grad()
    def estimate(
        self, pictures: Sequence[Picture], *, in_order: bool, known: EstimatedGeometry | None = None
    ) -> EstimatedGeometry:
        """See `GeometryProvider.estimate`."""
        check_enough(pictures, 2, self.name)
        network = load_geometry_network(rooms_geometry_folder()).eval()
        views: dict[str, EstimatedView] = {}
        for chosen in windows(len(pictures), self.window, self.shared):
            found = self._window(network, [pictures[n] for n in chosen])
            motion = laid_onto(found, views)
            for name, view in found.items():
                if name not in views:
                    assert view.T_world_camera is not None
                    views[name] = dataclasses.replace(view, T_world_camera=motion @ view.T_world_camera)
        return EstimatedGeometry(
            views={p.name: views[p.name] for p in pictures}, metric=True, notes={"trained_on": "procedural rooms"}
        )

    def _window(self, network: GeometryNetwork, pictures: Sequence[Picture]) -> dict[str, EstimatedView]:
        """In the first picture's camera frame."""
        size = network.config.image_size
        squares = [
            np.array(Image.fromarray(p.colour()).resize((size, size), Image.Resampling.BILINEAR)) for p in pictures
        ]
        images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
        answer = network(images[None])
        cameras = matched_cameras(answer)
        focal = float(answer.log_focal[0].mean().exp()) * size
        K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
        found = {}
        for n, picture in enumerate(pictures):
            depth = answer.log_depth[0, n].exp().numpy()
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = cameras.rotation[n].numpy(), cameras.translation[n].numpy()
            away = np.linalg.norm(answer.points[0, n].numpy() - answer.translation[0, n].numpy(), axis=-1)
            rays = np.hypot(1, np.hypot(*np.meshgrid(*[(np.arange(size) + 0.5 - size / 2) / focal] * 2)))
            valid = np.abs(away / (depth * rays) - 1) <= self.tolerance
            found[picture.name] = view_of(picture, depth, K, rigid(pose), valid)
        return found


def windows(count: int, size: int, shared: int) -> list[range]:
    """Runs of at most ``size`` numbers that cover 0..count-1, each sharing ``shared`` with the one before."""
    starts = range(0, max(1, count - shared), size - shared)
    return [range(start, min(count, start + size)) for start in starts]


def laid_onto(found: dict[str, EstimatedView], before: dict[str, EstimatedView]) -> Float[np.ndarray, "4 4"]:
    """The motion that brings a window's views to where the earlier ones have them: the median over the shared views."""
    motions = [
        before[name].T_world_camera @ np.linalg.inv(view.T_world_camera)
        for name, view in found.items()
        if name in before and view.T_world_camera is not None
    ]
    if not motions:
        return np.eye(4)
    middle = np.median(motions, axis=0)
    return rigid(middle)
