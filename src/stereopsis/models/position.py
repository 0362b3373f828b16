"""The 3D position encoding of Video-3D-LLM: where in the room a visual token looks."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

MINIMUM = (-15.0, -15.0, -5.0)
MAXIMUM = (15.0, 15.0, 5.0)
STEP = 0.1


class PositionEncoding3D(nn.Module):
    """Sinusoids of the discretised x, y and z, D // 3 features each, concatenated and zero padded to D.

    Coordinates are clamped to [-15,-15,-5]..[15,15,5] m and rounded to 0.1 m steps; feature i of an axis has the
    frequency 10000^(-2 (i // 2) / (D // 3)), sines and cosines interleaved (docs/papers.md). It has no
    parameters.

    Args:
        dim: size of the tokens that it is added to.
        scale: factor of the encoding; 1 as released. Small models whose tokens are small want a smaller one.
    """

    def __init__(self, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.dim, self.scale, self.features = dim, scale, dim // 3

    def forward(self, points: Float[Tensor, "*cells 3"]) -> Float[Tensor, "*cells dim"]:
        """Encode aligned-frame points (metres)."""
        points = points.float()
        minimum, maximum = points.new_tensor(MINIMUM), points.new_tensor(MAXIMUM)
        steps = ((torch.minimum(torch.maximum(points, minimum), maximum) - minimum) / STEP).round()
        feature = torch.arange(self.features + self.features % 2, device=points.device)
        wavelength = 10000.0 ** (2 * (feature // 2) / self.features)
        angle = steps[..., None] / wavelength  # divided, as released: the last bit of a large angle is 3e-5
        waves = torch.where(feature % 2 == 0, angle.sin(), angle.cos())[..., : self.features]
        encoded = waves.flatten(-2) * self.scale
        return nn.functional.pad(encoded, (0, self.dim - encoded.shape[-1]))
