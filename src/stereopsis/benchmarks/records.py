"""What a model said about one sample, and what that was worth: the records that every benchmark shares."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.annotations import Annotation
from stereopsis.errors import StereopsisError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """One number that a benchmark reports.

    Attributes:
        name: its key in `SampleScore.scores`.
        heading: what tables call it; made from the name where it is left out.
        shown: whether it stands in the report's main table.
        over_set: whether what one sample is worth depends on the whole set that is scored (CIDEr).
        bleu_order: 0 for the mean of the per-sample values; n for corpus BLEU-n, which is no mean of sentence
            values and is computed from the summed `SampleScore.bleu_counts`.
        meteor: whether this is corpus METEOR, computed from the summed `SampleScore.meteor_counts`.
        ranked: whether it looks at several answers of one system, best first (EM@10); where no prediction holds
            several, samples do not have it.
        optional: whether results may lack it, as `ranked` ones and those that earlier versions did not compute. A set
            of samples none of which has it is summarised without it.
    """

    name: str
    heading: str = ""
    shown: bool = True
    over_set: bool = False
    bleu_order: int = 0
    meteor: bool = False
    ranked: bool = False
    optional: bool = False

    def __post_init__(self) -> None:
        if self.ranked:
            object.__setattr__(self, "optional", True)
        if not self.heading:
            object.__setattr__(self, "heading", self.name.replace("_", "-").upper())


def _no_boxes() -> np.ndarray:
    return np.zeros((0, 6))


def _no_scores() -> np.ndarray:
    return np.zeros(0)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What a model said about one annotation; the input of every metric.

    Boxes are cx cy cz dx dy dz in the aligned frame, metres.

    Attributes:
        annotation: the question, caption or expression that was asked.
        text: the decoded answer or caption; empty where the benchmark points.
        ranked: the system's answers, best first (`text` is the first), where it gave several; else empty.
        boxes: [proposals, 6] the candidates of a grounding task; for a caption the one box that ``<coord>``
            spoke of, or none where no proposal was captioned.
        scores: [proposals] cosine similarity of each candidate, BEFORE the division by the temperature.
        zero_target_score: the same for "no such object" (needed where that may be the answer, else ignored).
        named: the places in `boxes` that the system itself picked, where it names objects instead of scoring them; None
            where it scores them.
        targets: [targets, 6] the true boxes of `annotation.object_ids`.

    Raises:
        StereopsisError: a score or a box is not finite, a size is negative, or scores and boxes differ in
            number.
    """

    annotation: Annotation
    text: str = ""
    ranked: tuple[str, ...] = ()
    boxes: Float[np.ndarray, "proposals 6"] = dataclasses.field(default_factory=_no_boxes)
    scores: Float[np.ndarray, " proposals_or_none"] = dataclasses.field(default_factory=_no_scores)
    zero_target_score: float | None = None
    named: tuple[int, ...] | None = None
    targets: Float[np.ndarray, "targets 6"] = dataclasses.field(default_factory=_no_boxes)

    def __post_init__(self) -> None:
        for name, boxes in (("boxes", self.boxes), ("targets", self.targets)):
            if not np.isfinite(boxes).all() or (boxes[:, 3:] < 0).any():
                raise StereopsisError(
                    f"{self.label}: {name} must be finite with sizes >= 0 (cx cy cz dx dy dz, metres); "
                    f"got {boxes[_first_bad_box(boxes)].tolist()}"
                )
        if len(self.scores) and len(self.scores) != len(self.boxes):
            raise StereopsisError(f"{self.label}: {len(self.scores)} scores for {len(self.boxes)} proposal boxes")
        zero = self.zero_target_score
        if not np.isfinite(self.scores).all() or (zero is not None and not np.isfinite(zero)):
            raise StereopsisError(
                f"{self.label}: proposal scores must be finite, got {self.scores.tolist()} and zero-target "
                f"score {zero}; a NaN here usually means that training diverged"
            )

    @property
    def label(self) -> str:
        """How error messages call this record."""
        return f"prediction for {self.annotation.task} '{self.annotation.id}'"


def _first_bad_box(boxes: Float[np.ndarray, "boxes 6"]) -> int:
    return int(np.argmax(~np.isfinite(boxes).all(axis=1) | (boxes[:, 3:] < 0).any(axis=1)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleScore:
    """What one prediction was worth.

    Attributes:
        id: the annotation's id.
        scene_id: its scene, the unit of the bootstrap.
        task: its benchmark.
        type: its question type.
        scores: metric name -> value as a FRACTION (1.0 = right; CIDEr up to 10); `summarise` turns them to
            points.
        bleu_counts: the sample's share in corpus BLEU (see `stereopsis.benchmarks.scoring.text`); empty without texts.
        meteor_counts: its share in corpus METEOR (see `stereopsis.benchmarks.scoring.java_tools`); empty where METEOR
            was not computed.
        unavailable: metric name -> why it is not in `scores` (no Java, not asked for).
        protocol: by whose rules it was scored (see `stereopsis.benchmarks.protocols`).
    """

    id: str
    scene_id: str
    task: str
    type: str
    scores: Mapping[str, float]
    bleu_counts: tuple[float, ...] = ()
    meteor_counts: tuple[float, ...] = ()
    unavailable: Mapping[str, str] = dataclasses.field(default_factory=dict)
    protocol: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary that JSON can hold."""
        return {**dataclasses.asdict(self), "scores": dict(self.scores), "unavailable": dict(self.unavailable)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "SampleScore":
        """The inverse of `to_dict`."""
        counts = {key: tuple(record.get(key, ())) for key in ("bleu_counts", "meteor_counts")}
        return cls(**{**record, **counts})


def sample_score(
    prediction: Prediction,
    scores: Mapping[str, float],
    *,
    protocol: str,
    bleu_counts: Iterable[float] = (),
    meteor_counts: Iterable[float] = (),
    unavailable: Mapping[str, str] | None = None,
) -> SampleScore:
    """Put a prediction's values under the ids of its annotation."""
    annotation = prediction.annotation
    return SampleScore(
        id=annotation.id,
        scene_id=annotation.scene_id,
        task=annotation.task,
        type=annotation.type,
        scores=dict(scores),
        bleu_counts=tuple(float(count) for count in bleu_counts),
        meteor_counts=tuple(float(count) for count in meteor_counts),
        unavailable=dict(unavailable or {}),
        protocol=protocol,
    )


def require_unique(predictions: Sequence[Prediction]) -> None:
    """Refuse a sample that was answered twice: it would count double.

    Raises:
        StereopsisError: two predictions share task and id.
    """
    seen: set[tuple[str, str]] = set()
    for prediction in predictions:
        key = (prediction.annotation.task, prediction.annotation.id)
        if key in seen:
            raise StereopsisError(f"{key[0]} '{key[1]}' was predicted twice; give one prediction per annotation")
        seen.add(key)


def references(annotation: Annotation) -> tuple[str, ...]:
    """The accepted answers or reference captions.

    Raises:
        StereopsisError: there is none, or all are empty.
    """
    if not any(answer.strip() for answer in annotation.answers):
        raise StereopsisError(
            f"{annotation.task} '{annotation.id}' has no answer to compare with; "
            "score only annotations of a split whose answers are public"
        )
    return annotation.answers
