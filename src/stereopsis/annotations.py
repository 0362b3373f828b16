"""What is said about a scene: one record type for every benchmark and for the procedural rooms."""

import dataclasses
from typing import Any

GROUND_TOKEN = "<ground>"
"""What a model says to point: its state there is compared with every candidate box."""
COORD_TOKEN = "<coord>"
"""Stands in a prompt for a point in 3D, whose encoding is added there."""
Box = tuple[float, float, float, float, float, float]
"""cx cy cz dx dy dz, aligned frame, metres."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotation:
    """One question, caption or referring expression about one scene.

    Attributes:
        id: unique within its data set.
        task: the name of the benchmark whose form this record has.
        scene_id: the scene it speaks of.
        type: the benchmark's own question type ("what", "unique", "zt_w_d", ...) or the rooms' ("count", ...).
        text: the question or the referring expression; empty where an object is to be described.
        situation: where the agent stands and what it faces, in words.
        position: the agent's place in the aligned world frame, metres.
        yaw: the agent's facing direction, radians counter-clockwise from +x seen from above.
        options: what a multiple-choice question offers, as it is shown ("A. the chair"); the answer is a letter then.
        answers: accepted answers (a number as it is written: "3", "1.5") or reference captions.
        object_ids: the objects that the answer is about; the target(s) of grounding tasks (none, one or several);
            for a caption exactly one, the object to describe.
    """

    id: str
    task: str
    scene_id: str
    type: str
    text: str = ""
    situation: str = ""
    position: tuple[float, float, float] | None = None
    yaw: float | None = None
    options: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    object_ids: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary that JSON can hold."""
        record = dataclasses.asdict(self)
        if not self.options:  # files of questions without options stay as they were, and so do their fingerprints
            del record["options"]
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Annotation":
        """The inverse of `to_dict`.

        Raises:
            TypeError: a key is unknown or missing, or a list is something else (a text is no list of its letters).
        """
        values = dict(record)
        for key in ("options", "answers", "object_ids", "position"):
            if values.get(key) is not None:
                if not isinstance(values[key], (list, tuple)):
                    raise TypeError(f"'{key}' must be a list, found {str(values[key])[:60]!r}")
                values[key] = tuple(values[key])
        for text in (*values.get("answers", ()), *values.get("options", ())):
            if not isinstance(text, str):
                raise TypeError(f"answers and options must be texts, found {str(text)[:60]}")
        return cls(**values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnotationRecord:
    """An annotation, and what else its file says about it.

    Attributes:
        annotation: the question, caption or expression.
        names: how prediction files of the official repositories may call it (``sample_id``), its own id apart.
        targets: the true boxes of `annotation.object_ids`, in their order; None where the file has none.
        query: the box that ``<coord>`` speaks of (captions): at validation the best proposal, None where no proposal
            was close enough or the file has none.
        words: what the file itself asks, to the letter, where it asks in whole prompts; else empty.
        counted_type: whether the annotation's type is none that the file states, but was found by counting over the
            file, so that a part of a split gives other types than the whole.
    """

    annotation: Annotation
    names: tuple[str, ...] = ()
    targets: tuple[Box, ...] | None = None
    query: Box | None = None
    words: str = ""
    counted_type: bool = False
