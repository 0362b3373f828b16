"""The official checkpoints of LLaVA-Video, Video-3D-LLM, Ross3D and 3DRS: read into this package's form, and back."""

from stereopsis.models.released.convert import Converted, convert_from_released, convert_to_released
from stereopsis.models.released.keys import Kind, kind_of, our_name, released_name

__all__ = [
    "Converted",
    "Kind",
    "convert_from_released",
    "convert_to_released",
    "kind_of",
    "our_name",
    "released_name",
]
