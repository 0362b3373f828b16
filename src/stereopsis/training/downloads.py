"""Where what recipes name can be had: links, licences and sizes, for whoever starts from nothing.

Nothing is downloaded by the program: most of it asks for a form or an agreement. Sizes are parameters times bytes each.
"""

import dataclasses
import re
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Download:
    """Something that a recipe needs and that others distribute.

    Attributes:
        name: what it is.
        pattern: of the path or name by which recipes call it.
        link: where to get it.
        licence: as its page states it.
        size: about; empty where it depends on what one takes.
        note: what to do with it.
    """

    name: str
    pattern: str
    link: str
    licence: str
    size: str = ""
    note: str = ""


DOWNLOADS = (
    Download(
        name="LLaVA-Video-7B-Qwen2, the papers' base",
        pattern=r"LLaVA-Video-7B-Qwen2$",
        link="https://huggingface.co/lmms-lab/LLaVA-Video-7B-Qwen2",
        licence="Apache-2.0",
        size="16 GB",
        note="convert it: stereopsis convert DOWNLOADED {place}",
    ),
    Download(
        name="FLUX.1's autoencoder, Ross3D's latent teacher",
        pattern=r"FLUX\.1-dev/vae$",
        link="https://huggingface.co/black-forest-labs/FLUX.1-dev (folder vae)",
        licence="FLUX.1 [dev] Non-Commercial; FLUX.1-schnell has the same autoencoder under Apache-2.0",
        size="0.2 GB",
    ),
    Download(
        name="Ross's denoiser, from which Ross3D starts",
        pattern=r"ross-denoiser$",
        link="https://huggingface.co/HaochenWang/ross-qwen2-7b (whose checkpoint holds it)",
        licence="see its page",
        note="or -s denoiser.init=null, which trains one from nothing",
    ),
    Download(
        name="VGGT-1B, 3DRS's feature teacher",
        pattern=r"VGGT-1B",
        link="https://huggingface.co/facebook/VGGT-1B (model.pt)",
        licence="CC BY-NC 4.0",
        size="5 GB",
        note="and its package, from https://github.com/facebookresearch/vggt",
    ),
    Download(
        name="TAEF1, a small autoencoder of FLUX's latents",
        pattern=r"taef1$",
        link="https://github.com/madebyollin/taesd",
        licence="MIT",
    ),
    *(
        Download(
            name=f"{name}, a base",
            pattern=rf"{re.escape(name)}$",
            link=f"https://huggingface.co/{owner}/{name}",
            licence=licence,
            size=size,
        )
        for owner, name, licence, size in (
            ("Qwen", "Qwen2.5-VL-3B-Instruct", "Qwen Research", "8 GB"),
            ("Qwen", "Qwen2.5-VL-7B-Instruct", "Apache-2.0", "17 GB"),
            ("Qwen", "Qwen3-VL-8B-Instruct", "Apache-2.0", "18 GB"),
            ("OpenGVLab", "InternVL3-8B-hf", "MIT; its Qwen2.5 part Apache-2.0", "16 GB"),
        )
    ),
)

SCANNET = Download(
    name="ScanNet v2 in Video-3D-LLM's layout",
    pattern="",
    link="http://www.scan-net.org (form), then https://github.com/zd11024/Video-3D-LLM, scripts/3d/preprocessing; "
    "boxes and masks: https://huggingface.co/datasets/zd11024/Video-3D-LLM_data",
    licence="ScanNet's terms of use; each benchmark's own",
    note="3DRS's data (https://huggingface.co/datasets/OliverHuang1998/3DRS) has the same layout",
)
"""What a recipe's sources with ``annotations`` are."""


def download_of(place: Path | str) -> Download | None:
    """Where what lies at a path of a recipe can be had; None where it is not known."""
    return next((each for each in DOWNLOADS if re.search(each.pattern, str(place).rstrip("/"))), None)
