"""One thin adapter per Hugging Face multimodal LLM family."""

from stereopsis.models.adapter import Adapter
from stereopsis.models.families.gemma3 import Gemma3Adapter
from stereopsis.models.families.internvl import InternVLAdapter
from stereopsis.models.families.llava_onevision import LlavaOnevisionAdapter
from stereopsis.models.families.qwen_vl import Qwen2VLAdapter, Qwen3VLAdapter, Qwen25VLAdapter
from stereopsis.models.families.smolvlm import SmolVLMAdapter

FAMILIES: dict[str, type[Adapter]] = {
    adapter.family: adapter
    for adapter in (
        LlavaOnevisionAdapter,
        Qwen2VLAdapter,
        Qwen25VLAdapter,
        Qwen3VLAdapter,
        InternVLAdapter,
        Gemma3Adapter,
        SmolVLMAdapter,
    )
}
"""Adapters by the ``model_type`` of a model's config.json."""

__all__ = [
    "FAMILIES",
    "Gemma3Adapter",
    "InternVLAdapter",
    "LlavaOnevisionAdapter",
    "Qwen2VLAdapter",
    "Qwen3VLAdapter",
    "Qwen25VLAdapter",
    "SmolVLMAdapter",
]
