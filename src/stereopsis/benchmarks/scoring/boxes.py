"""Grounding metrics on axis-aligned boxes cx cy cz dx dy dz, metres: matching and F1."""

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from stereopsis.benchmarks.records import Prediction
from stereopsis.geometry.boxes import box_volume, intersection_volume

IOU_THRESHOLDS = (0.25, 0.5)
_UNION_ADDED = 1e-8


def evaluated_iou(a: Float[np.ndarray, "n 6"], b: Float[np.ndarray, "m 6"]) -> Float[np.ndarray, "n m"]:
    """IoU as the evaluators of ScanRefer and Multi3DRefer have it: the union is larger by 1e-8 cubic metres.

    So a box that overlaps by exactly a threshold misses it, here as there.
    """
    shared = intersection_volume(a, b)
    return shared / (box_volume(a)[:, None] + box_volume(b)[None] - shared + _UNION_ADDED)


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
    """F1 of a set of predicted boxes at each IoU threshold, as Multi3DRefer defines it.

    One-to-one matching of the largest TOTAL IoU (Multi3DRefer, section 5: one matching for all thresholds,
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
