"""Pi3 (Wang et al. 2025), from the user's checkout: cameras and point maps in a unit of their own.

Its poses lead from camera to world; confidence comes as logits. It names no intrinsics: they are fitted to the points.
The code is BSD-3-Clause, the weights are for non-commercial use.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from stereopsis.errors import SceneError
from stereopsis.providers.networks import NetworkProvider, array, as_tensor, rigid, view_of
from stereopsis.providers.provider import EstimatedView, Picture

LEAST_SURE = 0.1
"""Probability from which a pixel is believed, as the authors' demo does."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pi3(NetworkProvider):
    """See the module's docstring; all pictures are looked at together."""

    name = "pi3"
    package = "pi3"
    install = "pip install git+https://github.com/yyfz/Pi3"

    weights: str = "yyfz233/Pi3X"

    def views(self, pictures: Sequence[Picture], device: str) -> Mapping[str, EstimatedView]:
        """See `NetworkProvider.views`."""
        import torch
        from pi3.models.pi3x import Pi3X

        network = Pi3X.from_pretrained(self.weights).to(device).eval()
        with torch.no_grad():
            answer = network(as_tensor(pictures, 518, 14).to(device)[None])
        points, poses = array(answer["local_points"])[0], array(answer["camera_poses"])[0]
        sure = 1 / (1 + np.exp(-array(answer["conf"])[0, ..., 0]))
        views = {}
        for n, picture in enumerate(pictures):
            valid = sure[n] >= LEAST_SURE
            K = fitted_pinhole(points[n], valid)
            views[picture.name] = view_of(picture, points[n, ..., 2], K, rigid(poses[n]), valid)
        return views


def fitted_pinhole(
    points: Float[np.ndarray, "rows cols 3"], valid: Bool[np.ndarray, "rows cols"]
) -> Float[np.ndarray, "3 3"]:
    """The pinhole with a centred principal point whose pixels see the points of their camera's frame.

    Raises:
        SceneError: too few points lie before the camera.
    """
    rows, cols = valid.shape
    u, v = np.meshgrid(np.arange(cols) + 0.5 - cols / 2, np.arange(rows) + 0.5 - rows / 2)
    ok = valid & (points[..., 2] > 0)
    if ok.sum() < 16:
        raise SceneError("the network sees no surface before a camera; try sharper pictures of the room")
    x, y = (points[..., k][ok] / points[..., 2][ok] for k in (0, 1))
    fx, fy = ((place[ok] * slope).sum() / (slope**2).sum() for place, slope in ((u, x), (v, y)))
    return np.array([[fx, 0, cols / 2], [0, fy, rows / 2], [0, 0, 1]])
