"""What is said about a scene: one record type for all five benchmarks and for the procedural rooms."""

import dataclasses
from typing import Literal

Task = Literal["sqa3d", "scanqa", "scan2cap", "scanrefer", "multi3drefer"]
TASKS: tuple[Task, ...] = ("sqa3d", "scanqa", "scan2cap", "scanrefer", "multi3drefer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotation:
    """One question, caption or referring expression about one scene.

    Attributes:
        id: unique within its data set.
        task: the benchmark whose form this record has.
        scene_id: the scene it speaks of.
        type: the benchmark's own question type ("what", "unique", "zt_w_d", ...) or the rooms' ("count", ...).
        text: the question (sqa3d, scanqa) or the referring expression (scanrefer, multi3drefer); empty for scan2cap.
        situation: where the agent stands and what it faces, in words (sqa3d only).
        position: the agent's place in the aligned world frame, metres (sqa3d only).
        yaw: the agent's facing direction, radians counter-clockwise from +x seen from above (sqa3d only).
        answers: accepted answers (sqa3d, scanqa) or reference captions (scan2cap).
        object_ids: the objects that the answer is about; the target(s) of grounding tasks (none, one or several);
            for scan2cap exactly one, the object to describe.
    """

    id: str
    task: Task
    scene_id: str
    type: str
    text: str = ""
    situation: str = ""
    position: tuple[float, float, float] | None = None
    yaw: float | None = None
    answers: tuple[str, ...] = ()
    object_ids: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """A plain dictionary that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: dict) -> "Annotation":
        """The inverse of `to_dict`."""
        values = dict(record)
        for key in ("answers", "object_ids", "position"):
            if values.get(key) is not None:
                values[key] = tuple(values[key])
        return cls(**values)
