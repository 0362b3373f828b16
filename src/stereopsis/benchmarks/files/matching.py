"""Scoring somebody else's prediction file: which prediction answers which annotation, and what each was worth."""

import dataclasses
import re
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.files.annotation_files import AnnotationRecord
from stereopsis.benchmarks.files.predictions import (
    PredictedSample,
    PredictionFile,
    refuse_repeated,
    some,
)
from stereopsis.benchmarks.records import Prediction, SampleScore
from stereopsis.benchmarks.registry import benchmark_named
from stereopsis.benchmarks.scoring.boxes import query_box
from stereopsis.errors import StereopsisError

Boxes = Mapping[str, Float[np.ndarray, "_ 6"]]
SAME_BOX = 0.01
"""Metres within which two writings of one true box may differ (files round)."""
UNKNOWN_TYPES = ("", "unknown", "N/A")

_ANYWHERE = np.array([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoredFile:
    """What a prediction file was worth.

    Attributes:
        predictions: one per annotation, in the annotations' order; missing ones have an empty answer.
        samples: their scores, in the same order; missing ones score 0 in every metric.
        missing: ids of annotations that nobody answered.
        extra: ids in the file that no annotation has; they were left out.
        notes: what a reader of the figures has to know, as sentences.
    """

    predictions: tuple[Prediction, ...]
    samples: tuple[SampleScore, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """An annotation with its sample.

    Attributes:
        annotation: what was asked.
        truth: its true boxes [targets, 6], or None where the annotation file has none.
        query: the box [6] that its caption was asked for, or None.
        sample: what was answered, or None.
        renamed: whether the file calls it by another name than its id.
    """

    annotation: Annotation
    truth: Float[np.ndarray, "targets 6"] | None
    query: Float[np.ndarray, "6"] | None
    sample: PredictedSample | None
    renamed: bool


def score_file(
    file: PredictionFile,
    records: Sequence[AnnotationRecord],
    score: Callable[[Sequence[Prediction]], list[SampleScore]],
    *,
    proposals: Boxes | None = None,
    missing_as_wrong: bool = False,
) -> ScoredFile:
    """Pair a file's samples with annotations and score them.

    A sample belongs to the annotation whose id it has, or one of its other names (the ``sample_id`` of the official
    repositories); a caption also to the object of its scene that has its reference captions. Where a name is
    but a place in a list, the true boxes in both files must agree.

    Args:
        file: what was predicted.
        records: the annotations of a whole split, of one benchmark. Where they have no true boxes, the prediction
            file's own ``gt_response`` is taken, which is noted.
        score: the benchmark's scoring, under the protocol wanted.
        proposals: candidates by scene, for files that hold only scores, and to tell which objects to describe no
            candidate finds.
        missing_as_wrong: annotations without prediction score 0 instead of being refused.

    Raises:
        StereopsisError: no sample belongs to any annotation, annotations are without prediction, two samples answer
            one annotation, or a sample does not hold what its task needs.
    """
    tasks = sorted({record.annotation.task for record in records})
    if len(tasks) != 1:
        raise StereopsisError(f"{file.path}: a file is scored against annotations of one benchmark, got {tasks}")
    pairs, extra = _paired(file, records)
    missing = tuple(pair.annotation.id for pair in pairs if pair.sample is None)
    if missing and not missing_as_wrong:
        surplus = f", and {len(extra)} that belong to no annotation ({some(extra)})" if extra else ""
        raise StereopsisError(
            f"{file.path}: {len(missing)} of {len(pairs)} annotations have no prediction ({some(missing)}); the file "
            f"holds {len(file.samples)} predictions{surplus}. Give the annotations of the split "
            "that was predicted, or pass --missing-as-wrong to let them score 0"
        )
    asked = any(pair.query is not None for pair in pairs)
    predictions = tuple(_prediction(pair, proposals or {}, asked) for pair in pairs)
    absent = set(missing)
    samples = tuple(
        dataclasses.replace(sample, scores=dict.fromkeys(sample.scores, 0.0)) if sample.id in absent else sample
        for sample in score(predictions)
    )
    notes = _notes(file, pairs, missing, extra)
    return ScoredFile(predictions=predictions, samples=samples, missing=missing, extra=tuple(extra), notes=notes)


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


def _required_box(benchmark: Benchmark, sample: PredictedSample) -> bool:
    """Whether it was asked under a protocol that leaves objects out which no candidate finds."""
    return any(each.requires_box for each in benchmark.protocols if each.name == sample.protocol)


def _paired(file: PredictionFile, records: Sequence[AnnotationRecord]) -> tuple[list[_Pair], list[str]]:
    """For each annotation its sample, and the ids that are nobody's."""
    annotations = [record.annotation for record in records]
    refuse_repeated([annotation.id for annotation in annotations], "annotations")
    by_id = {annotation.id: place for place, annotation in enumerate(annotations)}
    by_name = _without_ambiguous([(name, place) for place, record in enumerate(records) for name in record.names])
    described = benchmark_named(annotations[0].task).captions
    by_captions = _without_ambiguous(
        [(_captions_key(a.scene_id, a.answers), place) for place, a in enumerate(annotations) if described]
    )
    found: dict[int, PredictedSample] = {}
    renamed: set[int] = set()
    extra = []
    for sample in file.samples:
        place = by_id.get(sample.id)
        if place is None:
            # a caption's references say more than an id that is a place in somebody's list
            place = by_captions.get(_captions_key(sample.scene_id, sample.references), by_name.get(sample.id))
            renamed |= set() if place is None else {place}
        if place is None:
            extra.append(sample.id)
        elif place in found:
            raise StereopsisError(
                f"{file.path}: '{found[place].id}' and '{sample.id}' both answer {annotations[place].task} "
                f"'{annotations[place].id}'; keep one prediction per annotation"
            )
        else:
            found[place] = sample
    if not found:
        raise StereopsisError(
            f"{file.path}: none of its {len(file.samples)} ids ({some(extra)}) is one of the {len(annotations)} "
            f"annotations' ({some([a.id for a in annotations])}); is this the right benchmark and split?"
        )
    pairs = [
        _Pair(
            annotation=record.annotation,
            truth=None if record.targets is None else np.array(record.targets, dtype=np.float64).reshape(-1, 6),
            query=None if record.query is None else np.array(record.query, dtype=np.float64),
            sample=found.get(place),
            renamed=place in renamed,
        )
        for place, record in enumerate(records)
    ]
    for pair in pairs:
        _require_same_truth(file, pair)
    return pairs, extra


def _without_ambiguous(named: Sequence[tuple[Hashable, int]]) -> dict[Hashable, int]:
    """Names that mean one annotation only."""
    found: dict[Hashable, int] = {}
    ambiguous = set()
    for name, place in named:
        if found.setdefault(name, place) != place:
            ambiguous.add(name)
    return {name: place for name, place in found.items() if name not in ambiguous}


def _captions_key(scene_id: str, captions: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    return scene_id, tuple(sorted(_bare(text) for text in captions))


def _bare(text: str) -> str:
    """Letters and digits alone, so that spacing and frames do not matter."""
    words = re.findall(r"\w+", text.lower())
    framed = len(words) > 1 and words[0] == "sos" and words[-1] == "eos"
    return "".join(words[1:-1] if framed else words)


def _require_same_truth(file: PredictionFile, pair: _Pair) -> None:
    """A name that is a place in a list only means something if both files list the samples in the same order."""
    sample = pair.sample
    if sample is None or not pair.renamed or pair.truth is None or sample.true_boxes is None:
        return
    if not _same_boxes(pair.truth, sample.true_boxes):
        raise StereopsisError(
            f"{sample.where}: its id stands for '{pair.annotation.id}', but its gt_response is another box than that "
            f"annotation's; {file.path.name} was made from another file, or from one in another order: give the "
            "annotations that were predicted"
        )


def _same_boxes(first: Float[np.ndarray, "first 6"], second: Float[np.ndarray, "second 6"]) -> bool:
    """Whether two lists hold the same boxes, in any order."""
    near = (np.abs(first[:, None] - second[None]) <= SAME_BOX).all(axis=2)
    return len(first) == len(second) and bool(near.any(axis=1).all() and near.any(axis=0).all())


def _prediction(pair: _Pair, proposals: Boxes, asked: bool) -> Prediction:
    """The benchmark's form of a sample; of a missing one, an empty answer that can be scored."""
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
        if zero_target:
            raise StereopsisError(
                f"{sample.where}: {task} needs the candidates' scores with the zero target's last, because the "
                "protocol chooses among them; boxes alone are not enough"
            )
        assert sample.boxes is not None
        if len(sample.boxes) > 1:
            raise StereopsisError(f"{sample.where}: {len(sample.boxes)} boxes without scores; {task} takes one box")
        return Prediction(annotation=annotation, boxes=sample.boxes, scores=np.ones(len(sample.boxes)), targets=truth)
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


def _caption(annotation: Annotation, pair: _Pair, proposals: Boxes, asked: bool) -> Prediction:
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
    file: PredictionFile, pairs: Sequence[_Pair], missing: Sequence[str], extra: Sequence[str]
) -> tuple[str, ...]:
    notes = []
    if file.torn_lines:
        notes.append("The last line of the file is cut short; it was passed over.")
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
            and not _same_boxes(pair.truth, sample.true_boxes)
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
