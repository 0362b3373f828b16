"""Depth Anything 3 (Lin et al. 2025), from the user's installation: cameras and depth, in any unit or in metres.

Its extrinsics lead from world to camera; confidence is 1 and more. DA3-BASE and DA3-SMALL are Apache-2.0; LARGE, GIANT
and NESTED are for non-commercial use. Only NESTED answers in metres.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from stereopsis.providers.networks import NetworkProvider, as_images, believed, camera_to_world, view_of
from stereopsis.providers.provider import EstimatedView, Picture

METRIC = "nested"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthAnything3(NetworkProvider):
    """See the module's docstring; all pictures are looked at together."""

    name = "depth_anything_3"
    package = "depth_anything_3"
    install = "pip install depth-anything-3"

    weights: str = "depth-anything/DA3-BASE"

    @property
    def metric(self) -> bool:
        """See `NetworkProvider.metric`."""
        return METRIC in self.weights.lower()

    def views(self, pictures: Sequence[Picture], device: str) -> Mapping[str, EstimatedView]:
        """See `NetworkProvider.views`."""
        from depth_anything_3.api import DepthAnything3 as Network

        network = Network.from_pretrained(self.weights).to(device).eval()
        answer = network.inference(image=as_images(pictures))
        depth, valid = np.asarray(answer.depth), believed(np.asarray(answer.conf))
        poses = [camera_to_world(each) for each in answer.extrinsics]
        return {
            picture.name: view_of(picture, depth[n], answer.intrinsics[n], poses[n], valid[n])
            for n, picture in enumerate(pictures)
        }
