"""Depth Anything 3 (Lin et al. 2025), from the user's installation: cameras and depth, in any unit or in metres.

Its extrinsics lead from world to camera; confidence is 1 and more. DA3-BASE and DA3-SMALL are Apache-2.0; LARGE, GIANT
and NESTED are for non-commercial use. Only NESTED answers in metres.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from stereopsis.providers.networks import as_images, believed, camera_to_world, need, view_of
from stereopsis.providers.provider import EstimatedGeometry, GeometryProvider, Picture, check_enough

METRIC = "nested"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthAnything3(GeometryProvider):
    """See the module's docstring.

    Attributes:
        weights: a model's id, or a folder.
        device: where it runs; None: a GPU where there is one.
    """

    name = "depth_anything_3"

    weights: str = "depth-anything/DA3-BASE"
    device: str | None = None

    def check(self) -> None:
        """See `GeometryProvider.check`."""
        need("depth_anything_3", self.name, "pip install depth-anything-3")

    def estimate(
        self, pictures: Sequence[Picture], *, in_order: bool, known: EstimatedGeometry | None = None
    ) -> EstimatedGeometry:
        """See `GeometryProvider.estimate`; all pictures are looked at together."""
        self.check()
        check_enough(pictures, 1, self.name)
        answer = self._model().inference(image=as_images(pictures))
        depth, confidence = np.asarray(answer.depth), np.asarray(answer.conf)
        valid = believed(confidence)
        views = {
            picture.name: view_of(
                picture, depth[n], answer.intrinsics[n], camera_to_world(answer.extrinsics[n]), valid[n]
            )
            for n, picture in enumerate(pictures)
        }
        return EstimatedGeometry(views=views, metric=METRIC in self.weights.lower(), notes={"weights": self.weights})

    def _model(self) -> Any:
        import torch
        from depth_anything_3.api import DepthAnything3 as Network

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return Network.from_pretrained(self.weights).to(device).eval()
