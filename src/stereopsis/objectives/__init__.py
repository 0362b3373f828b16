"""The family of objectives that supervise a multimodal LLM's output at its visual tokens."""

from stereopsis.objectives.alignment import FeatureAlignment
from stereopsis.objectives.base import (
    GroundingScores,
    Masking,
    Objective,
    ObjectiveLoss,
    Randomness,
    SpatialOutputs,
    TextStates,
    of_scene,
)
from stereopsis.objectives.camera_pose import CameraPose
from stereopsis.objectives.consistency import Consistency
from stereopsis.objectives.contrastive import Contrastive
from stereopsis.objectives.denoiser_network import Denoiser, DenoiserConfig
from stereopsis.objectives.depth import DepthHead
from stereopsis.objectives.grounding import GroundingLoss
from stereopsis.objectives.noise_process import CosineDiffusion, Process, RectifiedFlow
from stereopsis.objectives.point_map import PointMap
from stereopsis.objectives.rays import RayMap
from stereopsis.objectives.reconstruction import BirdsEye, CrossView, VanillaReconstruction
from stereopsis.objectives.relational import Relational
from stereopsis.objectives.released import load_released_denoiser, released_forward, released_state_dict
from stereopsis.objectives.text import TextLoss

__all__ = [
    "BirdsEye",
    "CameraPose",
    "Consistency",
    "Contrastive",
    "CosineDiffusion",
    "CrossView",
    "Denoiser",
    "DenoiserConfig",
    "DepthHead",
    "FeatureAlignment",
    "GroundingLoss",
    "GroundingScores",
    "Masking",
    "Objective",
    "ObjectiveLoss",
    "PointMap",
    "Process",
    "Randomness",
    "RayMap",
    "RectifiedFlow",
    "Relational",
    "SpatialOutputs",
    "TextLoss",
    "TextStates",
    "VanillaReconstruction",
    "load_released_denoiser",
    "of_scene",
    "released_forward",
    "released_state_dict",
]
