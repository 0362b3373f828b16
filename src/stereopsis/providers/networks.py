"""What providers that run a network share: pictures in, its arrays out, in this package's conventions."""

import abc
import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from stereopsis.errors import MissingExtraError, SceneError
from stereopsis.geometry.camera import Intrinsics, invert_pose
from stereopsis.providers.provider import EstimatedGeometry, EstimatedView, GeometryProvider, Picture, check_enough

LEAST_CONFIDENT = 0.2
"""Share of the pixels, those of least confidence over all views, that is not believed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkProvider(GeometryProvider):
    """A provider that runs somebody's network, from the user's installation or checkout.

    Attributes:
        weights: a model's id, or a folder.
        device: where it runs; None: a GPU where there is one.
        package: what must be installed.
        install: the command that brings it.
    """

    package: ClassVar[str]
    install: ClassVar[str]

    weights: str
    device: str | None = None

    @property
    def metric(self) -> bool:
        """Whether these weights answer in metres."""
        return False

    @abc.abstractmethod
    def views(self, pictures: Sequence[Picture], device: str) -> Mapping[str, EstimatedView]:
        """What the network says of every picture, by its name, in this package's conventions."""

    def check(self) -> None:
        """See `GeometryProvider.check`."""
        if importlib.util.find_spec(self.package) is None:
            raise MissingExtraError(self.package, "", f"--geometry {self.name}", command=self.install)

    def estimate(
        self, pictures: Sequence[Picture], *, in_order: bool, known: EstimatedGeometry | None = None
    ) -> EstimatedGeometry:
        """See `GeometryProvider.estimate`."""
        self.check()
        check_enough(pictures, 1, self.name)
        import torch

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return EstimatedGeometry(
            views=self.views(pictures, device), metric=self.metric, notes={"weights": self.weights}
        )


def camera_to_world(extrinsics: np.ndarray) -> Float[np.ndarray, "4 4"]:
    """The inverse of a [3, 4] or [4, 4] world-to-camera matrix."""
    pose = np.eye(4)
    pose[:3] = np.asarray(extrinsics, dtype=np.float64)[:3]
    return invert_pose(rigid(pose))


def rigid(pose: np.ndarray) -> Float[np.ndarray, "4 4"]:
    """The pose in float64 with its rotation made orthonormal: networks' are so only nearly.

    Raises:
        SceneError: it is no pose.
    """
    pose = np.asarray(pose, dtype=np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise SceneError(f"the network answered with no pose: {pose.shape}, {pose.tolist()}; try other pictures")
    U, _, Vt = np.linalg.svd(pose[:3, :3])
    fixed = np.eye(4)
    fixed[:3, :3] = U @ np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))]) @ Vt
    fixed[:3, 3] = pose[:3, 3]
    return fixed


def believed(
    confidence: Float[np.ndarray, "views rows cols"], least: float = LEAST_CONFIDENT
) -> Bool[np.ndarray, "views rows cols"]:
    """All but the least confident share: scales of confidence differ between networks, their order means the same."""
    return confidence > np.quantile(confidence, least) if np.ptp(confidence) > 0 else np.ones_like(confidence, bool)


def view_of(
    picture: Picture,
    depth: Float[np.ndarray, "rows cols"],
    K: Float[np.ndarray, "3 3"],
    pose: Float[np.ndarray, "4 4"] | None,
    valid: Bool[np.ndarray, "rows cols"],
) -> EstimatedView:
    """A view whose network saw the whole picture at the depth's size, which K describes."""
    rows, cols = depth.shape
    small = Intrinsics.from_matrix(np.asarray(K, dtype=np.float64), cols, rows)
    return EstimatedView(
        intrinsics=small.resized(*picture.size),
        T_world_camera=pose,
        depth=np.asarray(depth, dtype=np.float32),
        valid=valid,
        places=_spread(depth, valid, picture.size),
    )


def _spread(depth: np.ndarray, valid: np.ndarray, size: tuple[int, int], count: int = 400) -> np.ndarray:
    """Some of the believed pixels, as places."""
    rows, cols = np.nonzero(valid & np.isfinite(depth) & (depth > 0))
    step = max(1, len(rows) // count)
    rows, cols = rows[::step], cols[::step]
    x, y = (cols + 0.5) * size[0] / depth.shape[1], (rows + 0.5) * size[1] / depth.shape[0]
    return np.stack([x, y, depth[rows, cols]], axis=1).astype(np.float64)


def as_images(pictures: Sequence[Picture]) -> list[Image.Image]:
    """As networks' own loaders take them."""
    return [Image.fromarray(picture.colour()) for picture in pictures]


def as_tensor(pictures: Sequence[Picture], long_side: int, multiple: int) -> Any:
    """Float [views, 3, rows, cols], 0..1, all of one size: the first picture's aspect at a multiple of the patch size.

    Pictures are squashed to it, never cropped, so that the answer describes the whole picture.
    """
    import torch

    width, height = pictures[0].size
    scale = long_side / max(width, height)
    size = [max(multiple, round(side * scale / multiple) * multiple) for side in (width, height)]
    arrays = [np.asarray(image.resize(size, Image.Resampling.BICUBIC)) for image in as_images(pictures)]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def array(value: Any) -> np.ndarray:
    """A tensor (or array) as a NumPy array."""
    return np.asarray(value.detach().float().cpu() if hasattr(value, "detach") else value)
