"""The family of objectives that supervise a multimodal LLM's output at its visual tokens."""

from stereopsis.objectives.alignment import FeatureAlignment
from stereopsis.objectives.base import (
    Corruption,
    GroundingScores,
    Objective,
    ObjectiveLoss,
    SpatialOutputs,
    TextStates,
)
from stereopsis.objectives.consistency import Consistency
from stereopsis.objectives.contrastive import Contrastive
from stereopsis.objectives.denoiser import Denoiser, DenoiserConfig
from stereopsis.objectives.diffusion import CosineDiffusion, Process, RectifiedFlow
from stereopsis.objectives.grounding import GroundingLoss
from stereopsis.objectives.reconstruction import BirdsEye, CrossView, VanillaReconstruction
from stereopsis.objectives.relational import Relational
from stereopsis.objectives.released import load_released_denoiser, released_forward, released_state_dict
from stereopsis.objectives.text import TextLoss

__all__ = [
    "BirdsEye",
    "Consistency",
    "Contrastive",
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
    "Process",
    "RectifiedFlow",
    "Relational",
    "SpatialOutputs",
    "TextLoss",
    "TextStates",
    "VanillaReconstruction",
    "load_released_denoiser",
    "released_forward",
    "released_state_dict",
]
