"""The family of objectives that supervise a multimodal LLM's output at its visual tokens."""

from stereopsis.objectives.alignment import FeatureAlignment
from stereopsis.objectives.base import (
    Corruption,
    GroundingScores,
    Objective,
    ObjectiveLoss,
    SpatialOutputs,
)
from stereopsis.objectives.denoiser import Denoiser, DenoiserConfig
from stereopsis.objectives.diffusion import CosineDiffusion
from stereopsis.objectives.grounding import GroundingLoss
from stereopsis.objectives.reconstruction import BirdsEye, CrossView, VanillaReconstruction
from stereopsis.objectives.text import TextLoss

__all__ = [
    "BirdsEye",
    "Corruption",
    "CosineDiffusion",
    "CrossView",
    "Denoiser",
    "DenoiserConfig",
    "FeatureAlignment",
    "GroundingLoss",
    "GroundingScores",
    "Objective",
    "ObjectiveLoss",
    "SpatialOutputs",
    "TextLoss",
    "VanillaReconstruction",
]
