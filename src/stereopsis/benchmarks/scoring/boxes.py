"""Grounding metrics on axis-aligned boxes cx cy cz dx dy dz, metres: matching and F1."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from stereopsis.benchmarks.records import Prediction
from stereopsis.errors import StereopsisError
from stereopsis.geometry.boxes import box_volume, intersection_volume

IOU_THRESHOLDS = (0.25, 0.5)
CAPTION_IOU = 0.5
"""From which overlap on a candidate stands for an object that is to be described."""
_UNION_ADDED = 1e-8
CORNERS = 8


def box_of_corners(value: Any, where: str) -> list[float]:
    """The box cx cy cz dx dy dz around eight corners, in any order; of a turned box the one that holds it.

    The published evaluators take the corners' smallest and largest coordinates likewise.

    Args:
        value: eight points [x, y, z], metres.
        where: file and sample, for messages.

    Raises:
        StereopsisError: not eight points of three finite numbers.
    """
    try:
        corners = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        corners = np.zeros(0)
    if corners.shape != (CORNERS, 3) or not np.isfinite(corners).all():
        raise StereopsisError(f"{where}: its box must be {CORNERS} corners [x, y, z] of finite numbers (metres)")
    low, high = corners.min(axis=0), corners.max(axis=0)
    return [*((low + high) / 2).tolist(), *(high - low).tolist()]


def evaluated_iou(a: Float[np.ndarray, "n 6"], b: Float[np.ndarray, "m 6"]) -> Float[np.ndarray, "n m"]:
    """IoU as the published evaluators of grounding have it: the union is larger by 1e-8 cubic metres.

    So a box that overlaps by exactly a threshold misses it, here as there.
    """
    shared = intersection_volume(a, b)
    return shared / (box_volume(a)[:, None] + box_volume(b)[None] - shared + _UNION_ADDED)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QueryBox:
    """The proposal that stands for an object: [6] cx cy cz dx dy dz, metres, and its IoU with the object."""

    box: Float[np.ndarray, "6"]
    iou: float


def query_box(proposals: Float[np.ndarray, "proposals 6"], target: Float[np.ndarray, "6"]) -> QueryBox | None:
    """The proposal that overlaps the object most, which ``<coord>`` then speaks of; None without proposals.

    Protocols that require a box ask for a caption only where the IoU reaches `CAPTION_IOU`.
    """
    if len(proposals) == 0:
        return None
    overlap = evaluated_iou(proposals, target[None])[:, 0]
    best = int(np.argmax(overlap))
    return QueryBox(box=proposals[best], iou=float(overlap[best]))


def hit_rates(prediction: Prediction) -> tuple[float, ...]:
    """At each threshold the share of a prediction's candidates that overlap some target so far; 0 without any."""
    if len(prediction.boxes) == 0:
        return (0.0,) * len(IOU_THRESHOLDS)
    best = evaluated_iou(prediction.boxes, prediction.targets).max(axis=1, initial=0.0)
    return tuple(float(np.mean(best >= threshold)) for threshold in IOU_THRESHOLDS)


def matched_f1(
    predicted: Float[np.ndarray, "predicted 6"],
    targets: Float[np.ndarray, "targets 6"],
    thresholds: tuple[float, ...] = IOU_THRESHOLDS,
) -> tuple[float, ...]:
    """F1 of a set of predicted boxes at each IoU threshold, as Zhang et al. (ICCV 2023) define it.

    One-to-one matching of the largest TOTAL IoU (arXiv 2309.05251, section 5: one matching for all thresholds,
    not the one with the most hits); a matched pair counts where its IoU reaches the threshold; F1 = 2 hits /
    (predicted + targets). Nothing predicted where nothing is there: 1; one of the two empty: 0. In single precision
    on a square matrix, as the benchmark's evaluator does it, so that ties and thresholds fall alike.
    """
    if len(predicted) == 0 or len(targets) == 0:
        right = float(len(predicted) == len(targets))
        return (right,) * len(thresholds)
    size, total = max(len(predicted), len(targets)), len(predicted) + len(targets)
    overlap = np.zeros((size, size), dtype=np.float32)
    overlap[: len(predicted), : len(targets)] = evaluated_iou(predicted, targets)
    matched = overlap[linear_sum_assignment(-overlap)]
    return tuple(2.0 * int((matched >= threshold).sum()) / total for threshold in thresholds)
