"""VGGT (Wang et al. 2025), from the user's checkout: cameras and depth in a unit of their own.

Its extrinsics lead from world to camera; confidence is 1 and more. VGGT-1B is for non-commercial use.
"""

import dataclasses
from collections.abc import Sequence

from stereopsis.providers.networks import array, as_tensor, believed, camera_to_world, device_of, need, view_of
from stereopsis.providers.provider import EstimatedGeometry, GeometryProvider, Picture, check_enough


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vggt(GeometryProvider):
    """See the module's docstring.

    Attributes:
        weights: a model's id, or a folder.
        device: where it runs; None: a GPU where there is one.
    """

    name = "vggt"

    weights: str = "facebook/VGGT-1B"
    device: str | None = None

    def check(self) -> None:
        """See `GeometryProvider.check`."""
        need("vggt", self.name, "pip install git+https://github.com/facebookresearch/vggt")

    def estimate(
        self, pictures: Sequence[Picture], *, in_order: bool, known: EstimatedGeometry | None = None
    ) -> EstimatedGeometry:
        """See `GeometryProvider.estimate`; all pictures are looked at together."""
        self.check()
        check_enough(pictures, 1, self.name)
        import torch
        from vggt.models.vggt import VGGT
        from vggt.utils.pose_enc import pose_encoding_to_extri_intri

        device = device_of(self.device)
        network = VGGT.from_pretrained(self.weights).to(device).eval()
        images = as_tensor(pictures, 518, 14).to(device)
        with torch.no_grad():
            answer = network(images[None])
            extrinsics, intrinsics = pose_encoding_to_extri_intri(answer["pose_enc"], tuple(images.shape[-2:]))
        depth, confidence = array(answer["depth"])[0, ..., 0], array(answer["depth_conf"])[0]
        poses, K, valid = array(extrinsics)[0], array(intrinsics)[0], believed(confidence)
        views = {
            picture.name: view_of(picture, depth[n], K[n], camera_to_world(poses[n]), valid[n])
            for n, picture in enumerate(pictures)
        }
        return EstimatedGeometry(views=views, metric=False, notes={"weights": self.weights})
