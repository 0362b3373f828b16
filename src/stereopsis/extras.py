"""The optional packages, named before any work: which extra brings what, and what a command needs of them."""

import importlib.util
from collections.abc import Mapping

from stereopsis.errors import MissingExtraError

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "rooms": ("embreex",),
    "report": ("jinja2", "plotly"),
    "metrics": ("pycocoevalcap",),
    "pictures": ("skimage",),
    "fusion": ("skimage",),
    "lora": ("peft",),
    "bnb": ("bitsandbytes",),
    "video": ("av", "pyarrow", "pillow_heif"),
    "colmap": ("pycolmap",),
    "record3d": ("liblzfse",),
    "rosbag": ("rosbags",),
    "ray": ("ray",),
    "tensorboard": ("tensorboard",),
    "serve": ("fastapi", "uvicorn", "httpx", "nicegui"),
    "mcp": ("mcp",),
}
"""Extra of pyproject.toml -> the modules that it brings (as they are imported)."""

_NAMES = {"skimage": "scikit-image", "liblzfse": "pyliblzfse", "pillow_heif": "pillow-heif"}


def missing_packages(extra: str) -> tuple[str, ...]:
    """The packages of an extra that are not installed; nothing is imported."""
    return tuple(_NAMES.get(name, name) for name in PACKAGES[extra] if importlib.util.find_spec(name) is None)


def require_extras(purpose: str, *extras: str) -> None:
    """Refuse work that would end in a missing package, before it begins.

    Args:
        purpose: what needs them, e.g. "The demo".
        extras: which.

    Raises:
        MissingExtraError: names everything that is missing, and one command that brings it.
    """
    lacking = {extra: missing for extra in extras if (missing := missing_packages(extra))}
    if lacking:
        packages = dict.fromkeys(name for missing in lacking.values() for name in missing)
        raise MissingExtraError(", ".join(packages), ",".join(lacking), purpose)
