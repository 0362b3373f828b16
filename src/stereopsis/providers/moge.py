"""MoGe (Wang et al. 2025), from the user's installation: the depth of single pictures, no cameras' places.

Combine it with a provider of cameras, e.g. ``colmap+moge``. Its intrinsics are in shares of the picture's sides.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from stereopsis.providers.networks import NetworkProvider, array, as_tensor, view_of
from stereopsis.providers.provider import EstimatedView, Picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moge(NetworkProvider):
    """See the module's docstring; every picture by itself, in a unit of its own."""

    name = "moge"
    gives_poses = False
    package = "moge"
    install = "pip install git+https://github.com/microsoft/MoGe"

    weights: str = "Ruicheng/moge-vitl"

    def views(self, pictures: Sequence[Picture], device: str) -> Mapping[str, EstimatedView]:
        """See `NetworkProvider.views`."""
        from moge.model.v1 import MoGeModel

        network = MoGeModel.from_pretrained(self.weights).to(device).eval()
        views = {}
        for picture in pictures:
            answer = network.infer(as_tensor([picture], 518, 14)[0].to(device))
            mask = array(answer["mask"]).astype(bool)
            depth = np.where(mask, array(answer["depth"]), 0)  # infinite outside of the mask
            rows, cols = depth.shape
            K = array(answer["intrinsics"]) * np.array([[cols], [rows], [1]])
            views[picture.name] = view_of(picture, depth, K, None, mask)
        return views
