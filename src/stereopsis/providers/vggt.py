"""VGGT (Wang et al. 2025), from the user's checkout: cameras and depth in a unit of their own.

Its extrinsics lead from world to camera; confidence is 1 and more. VGGT-1B is for non-commercial use.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from stereopsis.providers.networks import NetworkProvider, array, as_tensor, believed, camera_to_world, view_of
from stereopsis.providers.provider import EstimatedView, Picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vggt(NetworkProvider):
    """See the module's docstring; all pictures are looked at together."""

    name = "vggt"
    package = "vggt"
    install = "pip install git+https://github.com/facebookresearch/vggt"

    weights: str = "facebook/VGGT-1B"

    def views(self, pictures: Sequence[Picture], device: str) -> Mapping[str, EstimatedView]:
        """See `NetworkProvider.views`."""
        import torch
        from vggt.models.vggt import VGGT
        from vggt.utils.pose_enc import pose_encoding_to_extri_intri

        network = VGGT.from_pretrained(self.weights).to(device).eval()
        images = as_tensor(pictures, 518, 14).to(device)
        with torch.no_grad():
            answer = network(images[None])
            extrinsics, intrinsics = pose_encoding_to_extri_intri(answer["pose_enc"], tuple(images.shape[-2:]))
        depth, confidence = array(answer["depth"])[0, ..., 0], array(answer["depth_conf"])[0]
        poses, K, valid = array(extrinsics)[0], array(intrinsics)[0], believed(confidence)
        return {
            picture.name: view_of(picture, depth[n], K[n], camera_to_world(poses[n]), valid[n])
            for n, picture in enumerate(pictures)
        }
