"""ScanRefer: does the best-scoring proposal overlap the described object?"""

from collections.abc import Sequence

import numpy as np

from stereopsis.benchmarks.protocols import Protocol, protocol_of
from stereopsis.benchmarks.records import Metric, Prediction, SampleScore, require_unique, sample_score
from stereopsis.benchmarks.scoring.boxes import IOU_THRESHOLDS, evaluated_iou, hit_rates
from stereopsis.errors import StereopsisError

METRICS = tuple(Metric(name=f"acc@{threshold}", heading=f"Acc@{threshold}") for threshold in IOU_THRESHOLDS)
PROTOCOLS = (
    Protocol(
        task="scanrefer",
        name="standard",
        differs="the best-scoring of all proposals; unique and multiple among the objects of the annotation file",
        used_by=("ScanRefer", "Video-3D-LLM", "3DRS", "Ross3D"),
        default=True,
    ),
)


def score_sample(prediction: Prediction) -> dict[str, float]:
    """Acc@0.25 and Acc@0.5: 1.0 where the best-scoring proposal's IoU reaches the threshold.

    The zero target never competes: there always is an object. Of equal scores the first proposal wins;
    without proposals the answer is wrong.

    Raises:
        StereopsisError: there is not exactly one target box, or proposals have no scores.
    """
    if len(prediction.targets) != 1:
        raise StereopsisError(f"{prediction.label}: needs exactly one target box, got {len(prediction.targets)}")
    if len(prediction.boxes) == 0:
        return {metric.name: 0.0 for metric in METRICS}
    if len(prediction.scores) == 0:
        raise StereopsisError(f"{prediction.label}: its {len(prediction.boxes)} proposals have no scores")
    best = int(np.argmax(prediction.scores))
    overlap = evaluated_iou(prediction.boxes[best : best + 1], prediction.targets).item()
    return {metric.name: float(overlap >= threshold) for metric, threshold in zip(METRICS, IOU_THRESHOLDS, strict=True)}


def choose(prediction: Prediction) -> list[int]:
    """The best-scoring proposal; none where there are no scores."""
    return [int(np.argmax(prediction.scores))] if len(prediction.scores) else []


def chance(prediction: Prediction) -> dict[str, float]:
    """The exact expected score of one proposal picked uniformly at random: the share of proposals that hit."""
    return {metric.name: share for metric, share in zip(METRICS, hit_rates(prediction), strict=True)}


def score(predictions: Sequence[Prediction], protocol: str | None = None) -> list[SampleScore]:
    """Acc of every prediction, in order.

    Raises:
        StereopsisError: as `score_sample`, an annotation was predicted twice, or there is no such protocol.
    """
    require_unique(predictions)
    rules = protocol_of(PROTOCOLS, protocol).name
    return [sample_score(prediction, score_sample(prediction), protocol=rules) for prediction in predictions]
