"""Grounding metrics on axis-aligned boxes cx cy cz dx dy dz, metres: matching and F1."""

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from stereopsis.geometry.boxes import iou

IOU_THRESHOLDS = (0.25, 0.5)


def matched_f1(
    predicted: Float[np.ndarray, "predicted 6"],
    targets: Float[np.ndarray, "targets 6"],
    thresholds: tuple[float, ...] = IOU_THRESHOLDS,
) -> tuple[float, ...]:
    """F1 of a set of predicted boxes at each IoU threshold, as Multi3DRefer defines it.

    One-to-one matching of the largest TOTAL IoU (Multi3DRefer, section 5: one matching for all thresholds,
    not the one with the most hits); a matched pair counts where its IoU reaches the threshold; F1 = 2 hits /
    (predicted + targets). Nothing predicted where nothing is there: 1; one of the two empty: 0.
    """
    if len(predicted) == 0 or len(targets) == 0:
        right = float(len(predicted) == len(targets))
        return (right,) * len(thresholds)
    overlap = iou(predicted, targets)
    matched = overlap[linear_sum_assignment(overlap, maximize=True)]
    total = len(predicted) + len(targets)
    return tuple(2.0 * int((matched >= threshold).sum()) / total for threshold in thresholds)
