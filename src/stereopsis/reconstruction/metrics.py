"""How like its target a reconstruction is: in latents, in pixels, and in structure."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from stereopsis.errors import MissingExtraError
from stereopsis.reconstruction.sampling import Imagined
from stereopsis.teachers.latents import LatentTokenizer

EQUAL_PSNR = 99.0
"""The largest ratio that is written, dB: equal pictures have an infinite one, which JSON lacks."""
SAMPLE = "sample"
FIGURES = ("latent_mse", "psnr", "ssim")


def mean_of(samples: int) -> str:
    """What the mean of several draws is called."""
    return f"mean of {samples}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likeness:
    """One picture against its target; None where nothing of the target was seen.

    Attributes:
        latent_mse: mean squared error of the counted cells.
        psnr: dB over the counted pixels, at most `EQUAL_PSNR`.
        ssim: structural similarity, mean over the counted pixels (Gaussian window, sigma 1.5).
    """

    latent_mse: float | None
    psnr: float | None
    ssim: float | None


def estimates(imagined: Imagined, prefix: str = "") -> dict[str, Float[Tensor, "n rows cols channels"]]:
    """What the model made of a target: its single draws, and their mean where there are several."""
    found = {f"{prefix}{SAMPLE}": imagined.samples}
    if len(imagined.samples) > 1:
        found[f"{prefix}{mean_of(len(imagined.samples))}"] = imagined.samples.mean(dim=0, keepdim=True)
    return found


def likeness(
    cells: Float[Tensor, "n rows cols channels"],
    truth: Float[Tensor, "rows cols channels"],
    counted: Bool[Tensor, "rows cols"],
    tokenizer: LatentTokenizer,
) -> Likeness:
    """Figures of n reconstructions of one target, averaged.

    Pixels are compared with what the tokenizer itself makes of the target's cells: the best that any
    reconstruction can reach.

    Raises:
        MissingExtraError: scikit-image is absent.
    """
    if not bool(counted.any()):
        return Likeness(latent_mse=None, psnr=None, ssim=None)
    target = tokenizer.decode_cells(truth[None])[0].cpu()
    where = pixels_of(counted, target)
    pictures = tokenizer.decode_cells(cells).cpu()
    return Likeness(
        latent_mse=float((cells - truth)[:, counted].square().mean()),
        psnr=float(np.mean([psnr(picture, target, where) for picture in pictures])),
        ssim=float(np.mean([ssim(picture, target, where) for picture in pictures])),
    )


def pixels_of(counted: Bool[Tensor, "rows cols"], picture: UInt8[Tensor, "3 height width"]) -> Bool[Tensor, "h w"]:
    """The pixels that belong to counted cells."""
    grown = torch.nn.functional.interpolate(counted.float()[None, None], size=picture.shape[1:])
    return grown[0, 0].bool()


def psnr(
    picture: UInt8[Tensor, "3 height width"], target: UInt8[Tensor, "3 height width"], where: Bool[Tensor, "h w"]
) -> float:
    """Peak signal-to-noise ratio over the marked pixels, dB."""
    error = float((picture.float() - target.float()).square()[:, where].mean())
    return min(10 * float(np.log10(255.0**2 / error)), EQUAL_PSNR) if error else EQUAL_PSNR


def ssim(
    picture: UInt8[Tensor, "3 height width"], target: UInt8[Tensor, "3 height width"], where: Bool[Tensor, "h w"]
) -> float:
    """Structural similarity (Wang et al. 2004), mean over the marked pixels and the colours.

    Raises:
        MissingExtraError: scikit-image is absent.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise MissingExtraError("scikit-image", "pictures", "structural similarity") from error
    _, full = structural_similarity(
        picture.permute(1, 2, 0).numpy(),
        target.permute(1, 2, 0).numpy(),
        data_range=255,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return float(full[where.numpy()].mean())


def figures_of(
    imagined: Imagined, tokenizer: LatentTokenizer, controls: Mapping[str, Imagined] | None = None
) -> dict[str, dict[str, float | None]]:
    """Figures of everything that was made of one target, by name.

    Args:
        imagined: what the model made, and the plain guesses.
        tokenizer: the latent teacher.
        controls: what other models made of the same target, by name.
    """
    made = estimates(imagined)
    for name, control in (controls or {}).items():
        made |= estimates(control, f"{name}: ")
    made |= {name: cells[None] for name, cells in imagined.guesses.items()}
    return {
        name: dataclasses.asdict(likeness(cells, imagined.truth, imagined.counted, tokenizer))
        for name, cells in made.items()
    }


def averages(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Per kind of target and per estimate, the mean of every figure over all targets.

    Args:
        records: each with ``kind`` and ``figures`` (as `figures_of` gives them).

    Returns:
        {kind: {estimate: {figure: mean, "targets": how many}}}; a target of which nothing was seen does not count.
    """
    grouped: dict[str, dict[str, list[Mapping[str, float]]]] = {}
    for record in records:
        for name, figures in record["figures"].items():
            if figures["latent_mse"] is not None:
                grouped.setdefault(record["kind"], {}).setdefault(name, []).append(figures)
    return {
        kind: {name: {**_means(values), "targets": len(values)} for name, values in estimates_of.items()}
        for kind, estimates_of in grouped.items()
    }


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([value[key] for value in values])) for key in FIGURES}
