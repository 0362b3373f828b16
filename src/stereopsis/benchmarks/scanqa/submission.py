"""What ScanQA's evaluation server takes for its test splits: the form that the authors' ``predict.py`` writes."""

from collections.abc import Sequence
from typing import Any

from stereopsis.benchmarks.records import Prediction
from stereopsis.benchmarks.scanqa.metric import RANKS


def submission(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """One entry per question: ``scene_id``, ``question_id``, ``answer_top10`` and ``bbox``.

    A system that gives one answer repeats it: the server reads EM@1 from the first and EM@10 from all ten. ``bbox`` is
    for systems that also point; it is empty.
    """
    return [
        {
            "scene_id": each.annotation.scene_id,
            "question_id": each.annotation.id,
            "answer_top10": _ten(each.ranked[:RANKS] or (each.text,)),
            "bbox": [],
        }
        for each in predictions
    ]


def _ten(answers: Sequence[str]) -> list[str]:
    return [*answers, *[answers[-1]] * (RANKS - len(answers))]
