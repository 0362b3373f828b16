"""MapAnything (Keetha et al. 2025), from the user's installation: cameras and depth in metres.

Its poses lead from camera to world. The weights named here are Apache-2.0; its default ones are non-commercial.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stereopsis.providers.networks import as_images, believed, need, rigid, view_of
from stereopsis.providers.provider import EstimatedGeometry, GeometryProvider, Picture, check_enough


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapAnything(GeometryProvider):
    """See the module's docstring.

    Attributes:
        weights: a model's id, or a folder.
        device: where it runs; None: a GPU where there is one.
    """

    name = "map_anything"

    weights: str = "facebook/map-anything-apache"
    device: str | None = None

    def check(self) -> None:
        """See `GeometryProvider.check`."""
        need("mapanything", self.name, "pip install git+https://github.com/facebookresearch/map-anything")

    def estimate(
        self, pictures: Sequence[Picture], *, in_order: bool, known: EstimatedGeometry | None = None
    ) -> EstimatedGeometry:
        """See `GeometryProvider.estimate`."""
        self.check()
        check_enough(pictures, 1, self.name)
        answers = self._answers(pictures)
        depth = [_array(answer["depth_z"])[0, ..., 0] for answer in answers]
        confidence = believed(np.stack([_array(answer["conf"])[0] for answer in answers]))
        views = {}
        for n, (picture, answer) in enumerate(zip(pictures, answers, strict=True)):
            mask = _array(answer["mask"])[0].reshape(depth[n].shape).astype(bool)
            pose, K = rigid(_array(answer["camera_poses"])[0]), _array(answer["intrinsics"])[0]
            views[picture.name] = view_of(picture, depth[n], K, pose, confidence[n] & mask)
        return EstimatedGeometry(views=views, metric=True, notes={"weights": self.weights})

    def _answers(self, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
        import torch
        from mapanything.models import MapAnything as Network
        from mapanything.utils.image import load_images

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        with tempfile.TemporaryDirectory(prefix="stereopsis-map-anything-") as folder:
            for n, image in enumerate(as_images(pictures)):
                image.save(Path(folder) / f"{n:05d}.png")
            inputs = load_images(folder)
            network = Network.from_pretrained(self.weights).to(device)
            answers: list[dict[str, Any]] = network.infer(
                inputs, memory_efficient_inference=True, use_amp=device != "cpu", amp_dtype="bf16"
            )
        return answers


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().float().cpu() if hasattr(value, "detach") else value)
