"""MapAnything (Keetha et al. 2025), from the user's installation: cameras and depth in metres.

Its poses lead from camera to world. The weights named here are Apache-2.0; its default ones are non-commercial.
"""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stereopsis.providers.networks import NetworkProvider, array, as_images, believed, rigid, view_of
from stereopsis.providers.provider import EstimatedView, Picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapAnything(NetworkProvider):
    """See the module's docstring; all pictures are looked at together."""

    name = "map_anything"
    package = "mapanything"
    install = "pip install git+https://github.com/facebookresearch/map-anything"

    weights: str = "facebook/map-anything-apache"

    @property
    def metric(self) -> bool:
        """See `NetworkProvider.metric`."""
        return True

    def views(self, pictures: Sequence[Picture], device: str) -> Mapping[str, EstimatedView]:
        """See `NetworkProvider.views`."""
        answers = self._answers(pictures, device)
        depth = [array(answer["depth_z"])[0, ..., 0] for answer in answers]
        confidence = believed(np.stack([array(answer["conf"])[0] for answer in answers]))
        views = {}
        for n, (picture, answer) in enumerate(zip(pictures, answers, strict=True)):
            mask = array(answer["mask"])[0].reshape(depth[n].shape).astype(bool)
            pose, K = rigid(array(answer["camera_poses"])[0]), array(answer["intrinsics"])[0]
            views[picture.name] = view_of(picture, depth[n], K, pose, confidence[n] & mask)
        return views

    def _answers(self, pictures: Sequence[Picture], device: str) -> list[dict[str, Any]]:
        from mapanything.models import MapAnything as Network
        from mapanything.utils.image import load_images

        with tempfile.TemporaryDirectory(prefix="stereopsis-map-anything-") as folder:
            for n, image in enumerate(as_images(pictures)):
                image.save(Path(folder) / f"{n:05d}.png")
            inputs = load_images(folder)
            network = Network.from_pretrained(self.weights).to(device)
            answers: list[dict[str, Any]] = network.infer(
                inputs, memory_efficient_inference=True, use_amp=device != "cpu", amp_dtype="bf16"
            )
        return answers
