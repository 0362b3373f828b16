"""Scan2Cap: captions of an object that has to be located first (CIDEr, ROUGE-L, BLEU at IoU 0.5)."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from stereopsis.benchmarks.records import (
    Metric,
    Prediction,
    SampleScore,
    references,
    require_unique,
    sample_score,
)
from stereopsis.benchmarks.text import BLEU_ORDERS, score_texts
from stereopsis.errors import StereopsisError
from stereopsis.geometry.boxes import iou

Protocol = Literal["strict", "released"]

IOU_THRESHOLD = 0.5
METRICS = (
    Metric(name="cider@0.5"),
    Metric(name="rouge_l@0.5"),
    *(Metric(name=f"bleu_{order}@0.5", bleu_order=order) for order in BLEU_ORDERS),
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QueryBox:
    """The proposal that stands for an object: [6] cx cy cz dx dy dz, metres, and its IoU with the object."""

    box: Float[np.ndarray, "6"]
    iou: float


def query_box(proposals: Float[np.ndarray, "proposals 6"], target: Float[np.ndarray, "6"]) -> QueryBox | None:
    """The proposal that overlaps the object most, which ``<coord>`` then speaks of; None without proposals.

    The strict protocol (Video-3D-LLM) asks for a caption only where the IoU reaches 0.5.
    """
    if len(proposals) == 0:
        return None
    overlap = iou(proposals, target[None])[:, 0]
    best = int(np.argmax(overlap))
    return QueryBox(box=proposals[best], iou=float(overlap[best]))


def wrapped(text: str) -> str:
    """The form in which captions are compared: lower case, stops and commas apart, "sos ... eos" around."""
    return f"sos {text.replace('.', ' . ').replace(',', ' , ').lower()} eos"


def located(prediction: Prediction) -> bool:
    """Whether the captioned box overlaps the object with IoU >= 0.5.

    Raises:
        StereopsisError: the true box is missing, or several boxes were captioned at once.
    """
    if len(prediction.targets) != 1 or len(prediction.boxes) > 1:
        raise StereopsisError(
            f"{prediction.label}: needs exactly one target box (the object) and at most one box (the "
            f"captioned proposal, see query_box), got {len(prediction.targets)} and {len(prediction.boxes)}"
        )
    return bool((iou(prediction.boxes, prediction.targets) >= IOU_THRESHOLD).any())


def score(predictions: Sequence[Prediction], protocol: Protocol = "strict") -> list[SampleScore]:
    """All metrics of every prediction, in order.

    A caption whose box misses the object (IoU < 0.5) counts as empty under ``strict``, Video-3D-LLM's
    protocol; it is compared all the same under ``released``, what Ross3D's code does. CIDEr depends on the
    set (see `stereopsis.benchmarks.text`): pass the whole split. An empty caption still shares "sos" and
    "eos" with the references, so that its ROUGE-L and BLEU are a little above 0, as in the official code.

    Raises:
        MissingExtraError: pycocoevalcap is not installed.
        StereopsisError: a caption has no reference or no target box, or was predicted twice.
    """
    require_unique(predictions)
    kept = [located(prediction) or protocol == "released" for prediction in predictions]
    values = score_texts(
        [wrapped(p.text.strip() if keep else "") for p, keep in zip(predictions, kept, strict=True)],
        [[wrapped(caption) for caption in references(prediction.annotation)] for prediction in predictions],
    )
    return [
        sample_score(
            prediction,
            {
                "cider@0.5": float(values.cider[index]),
                "rouge_l@0.5": float(values.rouge_l[index]),
                **{f"bleu_{order}@0.5": float(values.bleu[index, order - 1]) for order in BLEU_ORDERS},
            },
            values.bleu_counts[index],
        )
        for index, prediction in enumerate(predictions)
    ]
