"""The form of ScanRefer's own benchmark: ``pred.json``, one described object each, its box as eight corners."""

from collections.abc import Mapping
from typing import Any

from stereopsis.benchmarks.scanrefer.reader import TYPES
from stereopsis.benchmarks.scoring.boxes import box_of_corners

KEYS = {"scene_id", "object_id", "ann_id", "bbox"}


def submitted(record: Mapping[str, Any], where: str) -> Mapping[str, Any] | None:
    """A record of such a file under our ids, with its box as cx cy cz dx dy dz; None where it is of another form.

    ``unique_multiple`` (0 or 1) is the type that the authors' script reports it under.

    Raises:
        StereopsisError: the box is not eight corners.
    """
    if not record.keys() >= KEYS:
        return None
    name = "|".join(str(record[key]) for key in ("scene_id", "object_id", "ann_id"))
    kind = record.get("unique_multiple")
    return {
        "sample_id": name,
        "scene_id": record["scene_id"],
        "pred_response": box_of_corners(record["bbox"], f"{where}, sample '{name}'"),
        "question_type": TYPES[kind] if kind in (0, 1) else "",
    }
