"""The model: family adapters, 3D position encoding, grounding head, packs, saving, and entering a scene."""

from stereopsis.models.inference import EnteredScene, enter_scene
from stereopsis.models.spatial import SpatialConfig, SpatialModel
from stereopsis.models.storage import load_model, push_model, save_model

# Users find these where Hugging Face's models have them; the modules themselves import in one direction.
SpatialModel.above.update(load=load_model, save=save_model, push=push_model, enter=enter_scene)

__all__ = ["EnteredScene", "SpatialConfig", "SpatialModel", "enter_scene", "load_model", "save_model"]
