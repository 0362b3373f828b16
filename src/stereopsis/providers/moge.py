"""MoGe (Wang et al. 2025), from the user's installation: the depth of single pictures, no cameras' places.

Combine it with a provider of cameras, e.g. ``colmap+moge``. Its intrinsics are in shares of the picture's sides.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from stereopsis.providers.networks import array, as_tensor, device_of, need, view_of
from stereopsis.providers.provider import EstimatedGeometry, GeometryProvider, Picture, check_enough


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moge(GeometryProvider):
    """See the module's docstring.

    Attributes:
        weights: a model's id, or a folder.
        device: where it runs; None: a GPU where there is one.
    """

    name = "moge"
    gives_poses = False

    weights: str = "Ruicheng/moge-vitl"
    device: str | None = None

    def check(self) -> None:
        """See `GeometryProvider.check`."""
        need("moge", self.name, "pip install git+https://github.com/microsoft/MoGe")

    def estimate(
        self, pictures: Sequence[Picture], *, in_order: bool, known: EstimatedGeometry | None = None
    ) -> EstimatedGeometry:
        """See `GeometryProvider.estimate`; every picture by itself, in a unit of its own."""
        self.check()
        check_enough(pictures, 1, self.name)
        from moge.model.v1 import MoGeModel

        device = device_of(self.device)
        network = MoGeModel.from_pretrained(self.weights).to(device).eval()
        views = {}
        for picture in pictures:
            answer = network.infer(as_tensor([picture], 518, 14)[0].to(device))
            mask = array(answer["mask"]).astype(bool)
            depth = np.where(mask, array(answer["depth"]), 0)  # infinite outside of the mask
            rows, cols = depth.shape
            K = array(answer["intrinsics"]) * np.array([[cols], [rows], [1]])
            views[picture.name] = view_of(picture, depth, K, None, mask)
        return EstimatedGeometry(views=views, metric=False, notes={"weights": self.weights})
