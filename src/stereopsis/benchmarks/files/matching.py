"""Scoring somebody else's prediction file: which prediction answers which annotation, and what each was worth."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.files.annotation_files import AnnotationRecord
from stereopsis.benchmarks.files.pairing import Pair, paired, same_boxes
from stereopsis.benchmarks.files.predictions import PredictedSample, PredictionFile
from stereopsis.benchmarks.files.strict_json import some
from stereopsis.benchmarks.records import Prediction, SampleScore
from stereopsis.benchmarks.registry import benchmark_named
from stereopsis.benchmarks.scoring.boxes import query_box
from stereopsis.errors import StereopsisError

Boxes = Mapping[str, Float[np.ndarray, "_ 6"]]
UNKNOWN_TYPES = ("", "unknown", "N/A")

_ANYWHERE = np.array([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ReadFile:
    """What a prediction file says about each annotation.

    Attributes:
        predictions: one per annotation, in the annotations' order; missing ones have an empty answer.
        missing: ids of annotations that nobody answered.
        extra: ids in the file that no annotation has; they were left out.
        notes: what a reader of the figures has to know, as sentences.
    """

    predictions: tuple[Prediction, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoredFile(ReadFile):
    """What a prediction file was worth.

    Attributes:
        samples: the predictions' scores, in the same order; missing ones score 0 in every metric.
    """

    samples: tuple[SampleScore, ...]


def score_file(
    file: PredictionFile,
    records: Sequence[AnnotationRecord],
    score: Callable[[Sequence[Prediction]], list[SampleScore]],
    *,
    proposals: Boxes | None = None,
    missing_as_wrong: bool = False,
) -> ScoredFile:
    """Pair a file's samples with annotations and score them; arguments and errors of `read_file`.

    Args:
        file: what was predicted.
        records: the annotations.
        score: the benchmark's scoring, under the protocol wanted.
        proposals: candidates by scene.
        missing_as_wrong: annotations without prediction score 0 instead of being refused.
    """
    read = read_file(file, records, proposals=proposals, missing_as_wrong=missing_as_wrong)
    absent = set(read.missing)
    samples = tuple(
        dataclasses.replace(sample, scores=dict.fromkeys(sample.scores, 0.0)) if sample.id in absent else sample
        for sample in score(read.predictions)
    )
    return ScoredFile(**{each.name: getattr(read, each.name) for each in dataclasses.fields(read)}, samples=samples)


def read_file(
    file: PredictionFile,
    records: Sequence[AnnotationRecord],
    *,
    proposals: Boxes | None = None,
    missing_as_wrong: bool = False,
) -> ReadFile:
    """Pair a file's samples with annotations.

    A sample belongs to the annotation whose id it has, or one of its other names (the ``sample_id`` of the official
    repositories); a caption also to the object of its scene that has its reference captions. Where a name is
    but a place in a list, the true boxes in both files must agree.

    Args:
        file: what was predicted.
        records: the annotations of a whole split, of one benchmark. Where they have no true boxes, the prediction
            file's own ``gt_response`` is taken, which is noted.
        proposals: candidates by scene, for files that hold only scores, and to tell which objects to describe no
            candidate finds.
        missing_as_wrong: annotations without prediction get an empty answer instead of being refused.

    Raises:
        StereopsisError: no sample belongs to any annotation, annotations are without prediction, two samples answer
            one annotation, or a sample does not hold what its task needs.
    """
    tasks = sorted({record.annotation.task for record in records})
    if len(tasks) != 1:
        raise StereopsisError(f"{file.path}: a file is scored against annotations of one benchmark, got {tasks}")
    records, untold = _without_counted_types(records)
    pairs, extra = paired(file, records)
    missing = tuple(pair.annotation.id for pair in pairs if pair.sample is None)
    if missing and not missing_as_wrong:
        surplus = f", and {len(extra)} that belong to no annotation ({some(extra)})" if extra else ""
        raise StereopsisError(
            f"{file.path}: {len(missing)} of {len(pairs)} annotations have no prediction ({some(missing)}); the file "
            f"holds {len(file.samples)} predictions{surplus}. Give the annotations of the split "
            "that was predicted, or pass --missing-as-wrong to let them score 0"
        )
    asked = any(pair.query is not None for pair in pairs)
    names = any(pair.sample is not None and pair.sample.scores is None for pair in pairs)
    predictions = tuple(_prediction(pair, proposals or {}, asked, names) for pair in pairs)
    notes = (*untold, *_notes(file, pairs, missing, extra))
    return ReadFile(predictions=predictions, missing=missing, extra=tuple(extra), notes=notes)


def require_captions(file: PredictionFile, task: str, protocol: str) -> None:
    """Refuse records of ours in which objects were left uncaptioned, where the protocol counts every caption.

    Raises:
        StereopsisError: captions are missing; tells how many.
    """
    benchmark = benchmark_named(task)
    if not benchmark.captions or benchmark.protocol(protocol).requires_box:
        return
    silent = [s for s in file.samples if s.boxes is not None and not len(s.boxes) and _required_box(benchmark, s)]
    if silent:
        raise StereopsisError(
            f"{file.path}: {len(silent)} objects were never captioned ({some([s.id for s in silent])}), because the "
            f"evaluation's protocol was '{silent[0].protocol}' and no candidate found them; '{protocol}' counts every "
            f"caption: evaluate with --protocol {task}={protocol} (its records can be scored as "
            f"'{silent[0].protocol}', too)"
        )


def _without_counted_types(records: Sequence[AnnotationRecord]) -> tuple[Sequence[AnnotationRecord], tuple[str, ...]]:
    """Types that were counted over a part of a split become unknown, which a note says."""
    benchmark = benchmark_named(records[0].annotation.task)
    counted = sorted({record.annotation.type for record in records if record.counted_type})
    public = all(re.fullmatch(benchmark.scenes, record.annotation.scene_id) for record in records)
    if not counted or not public or len(records) in benchmark.splits.values():
        return records, ()
    unknown = [
        dataclasses.replace(record, annotation=dataclasses.replace(record.annotation, type="unknown"))
        if record.counted_type
        else record
        for record in records
    ]
    splits = ", ".join(f"{name} {count}" for name, count in benchmark.splits.items())
    return unknown, (
        f"These {len(records)} annotations are no whole split ({splits}), and of a part it cannot be told which are "
        f"{' and which '.join(counted)}: that is counted over all objects of a scene that the split speaks of. Types "
        "are those that the predictions state (question_type), or unknown.",
    )


def _required_box(benchmark: Benchmark, sample: PredictedSample) -> bool:
    """Whether it was asked under a protocol that leaves objects out which no candidate finds."""
    return any(each.requires_box for each in benchmark.protocols if each.name == sample.protocol)


def _prediction(pair: Pair, proposals: Boxes, asked: bool, names: bool) -> Prediction:
    """The benchmark's form of a sample; of a missing one, an empty answer that can be scored.

    Args:
        pair: annotation and sample.
        proposals: candidates by scene.
        asked: whether the annotation file says for which box each caption was asked.
        names: whether the file's answers name objects instead of scoring candidates.
    """
    annotation, sample, truth = pair.annotation, pair.sample, pair.truth
    if sample is not None and annotation.type in UNKNOWN_TYPES and sample.type:
        annotation = dataclasses.replace(annotation, type=sample.type)
    benchmark = benchmark_named(annotation.task)
    if benchmark.captions:
        return _caption(annotation, pair, proposals, asked)
    if not benchmark.points:
        said = ("", ()) if sample is None else (sample.text or "", sample.ranked)
        return Prediction(annotation=annotation, text=said[0], ranked=said[1])
    if sample is None:
        one = benchmark.one_target
        known = truth if truth is not None else (_ANYWHERE if one else np.zeros((0, 6)))
        if names and not one:
            return Prediction(annotation=annotation, named=(), targets=known)
        return Prediction(annotation=annotation, zero_target_score=None if one else 1.0, targets=known)
    if truth is None:
        if sample.true_boxes is None:
            raise StereopsisError(
                f"{sample.where}: the true box is known neither from the annotations nor from a gt_response; give "
                "annotations with boxes (the processed *_llava_style.json)"
            )
        truth = sample.true_boxes
    return _pointing(annotation, sample, truth, proposals)


def _pointing(
    annotation: Annotation, sample: PredictedSample, truth: Float[np.ndarray, "targets 6"], proposals: Boxes
) -> Prediction:
    task, scores, zero = annotation.task, sample.scores, sample.zero_target_score
    zero_target = benchmark_named(task).zero_target
    if scores is None:
        picked = _picked(annotation, sample, proposals)
        if zero_target:
            return Prediction(annotation=annotation, boxes=picked, named=tuple(range(len(picked))), targets=truth)
        if sample.instances is None and sample.words == "" and len(picked) > 1:
            raise StereopsisError(f"{sample.where}: {len(picked)} boxes without scores; {task} takes one box")
        return Prediction(annotation=annotation, boxes=picked[:1], scores=np.ones(len(picked[:1])), targets=truth)
    boxes = sample.boxes if sample.boxes is not None else proposals.get(annotation.scene_id)
    if boxes is None:
        raise StereopsisError(
            f"{sample.where}: has scores but no boxes (objects); give the candidates of scene "
            f"'{annotation.scene_id}' with --boxes FILE, {{scene: [[cx, cy, cz, dx, dy, dz], ...]}}"
        )
    if zero is None and len(scores) == len(boxes) + 1:
        scores, zero = scores[:-1], float(scores[-1])
    if len(scores) != len(boxes) or (zero is None and zero_target):
        expected = f"{len(boxes) + 1} (the zero target's last)" if zero_target else f"{len(boxes)}"
        raise StereopsisError(
            f"{sample.where}: {len(scores)} scores for {len(boxes)} candidates; expected {expected}. Were the scores "
            "made with these candidates?"
        )
    return Prediction(annotation=annotation, boxes=boxes, scores=scores, zero_target_score=zero, targets=truth)


def _picked(annotation: Annotation, sample: PredictedSample, proposals: Boxes) -> Float[np.ndarray, "picked 6"]:
    """The boxes that an answer means, where it scores none: its own, or the candidates that it names.

    A named candidate that is not there counts for nothing; where one object is asked for and none is named, the
    first candidate counts, as in Chat-Scene's evaluator.
    """
    if sample.instances is None:
        assert sample.boxes is not None
        return sample.boxes
    boxes = proposals.get(annotation.scene_id)
    if boxes is None and not sample.instances:
        return np.zeros((0, 6))
    if boxes is None:
        raise StereopsisError(
            f"{sample.where}: names candidates by number (<OBJ012>); give those of scene '{annotation.scene_id}' with "
            "--boxes FILE, {scene: [[cx, cy, cz, dx, dy, dz], ...]} in the order of its instances, or Chat-Scene's "
            "scannet_*_attributes.pt"
        )
    named = [number for number in sample.instances if number < len(boxes)]
    if not named and not benchmark_named(annotation.task).zero_target and len(boxes):
        named = [0]
    return boxes[named]


def _caption(annotation: Annotation, pair: Pair, proposals: Boxes, asked: bool) -> Prediction:
    """A caption, and the box that it was asked for, where that is known.

    Known are the best of the candidates, the box of the annotation file, or that of our own records (then no box means
    that no candidate found the object). Else whoever wrote the predictions decided which objects to caption, and an
    empty caption is just that; any box that counts as found then stands for the object.
    """
    text = (pair.sample.text or "") if pair.sample else ""
    candidates = proposals.get(annotation.scene_id)
    own = None if pair.sample is None or candidates is not None or asked else pair.sample.boxes
    truth = pair.sample.true_boxes if pair.truth is None and pair.sample is not None else pair.truth
    if own is not None and truth is not None and pair.sample is not None:
        if len(own) and _required_box(benchmark_named(annotation.task), pair.sample):
            # it was found before its box was rounded to millimetres
            own = truth[:1]
        return Prediction(annotation=annotation, text=text, boxes=own[:1], targets=truth[:1])
    if pair.truth is None or (candidates is None and not asked):
        return Prediction(annotation=annotation, text=text, boxes=_ANYWHERE, targets=_ANYWHERE)
    box = pair.query
    if candidates is not None:
        query = query_box(candidates, pair.truth[0])
        box = None if query is None else query.box
    boxes = np.zeros((0, 6)) if box is None else box[None]
    return Prediction(annotation=annotation, text=text, boxes=boxes, targets=pair.truth[:1])


def _notes(
    file: PredictionFile, pairs: Sequence[Pair], missing: Sequence[str], extra: Sequence[str]
) -> tuple[str, ...]:
    notes = []
    if file.torn_lines:
        notes.append("The last line of the file is cut short; it was passed over.")
    if file.writer:
        notes.append(f"Read in the form of {file.writer}.")
    renamed = sum(pair.renamed for pair in pairs)
    if renamed:
        notes.append(
            f"{renamed} samples are named as the official repositories name them, not by the annotations' ids."
        )
    if missing:
        notes.append(f"{len(missing)} annotations have no prediction and score 0: {some(missing)}.")
    if extra:
        notes.append(f"{len(extra)} predictions belong to no annotation and were left out: {some(extra)}.")
    answered = [(pair, pair.sample) for pair in pairs if pair.sample is not None]
    if benchmark_named(pairs[0].annotation.task).points:
        own = sum(pair.truth is None for pair, _ in answered)
        if own:
            notes.append(f"The true boxes of {own} samples are the file's own (gt_response).")
        other = [
            pair.annotation.id
            for pair, sample in answered
            if pair.truth is not None
            and sample.true_boxes is not None
            and not same_boxes(pair.truth, sample.true_boxes)
        ]
        if other:
            notes.append(
                f"In {len(other)} samples gt_response is another box than the annotation's (which counts): "
                f"{some(other)}."
            )
    empty = sum(1 for _, sample in answered if sample.text is not None and not sample.text.strip())
    if empty:
        notes.append(f"{empty} predictions are empty.")
    return tuple(notes)
