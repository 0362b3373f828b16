"""Which sample of a prediction file answers which annotation."""

import dataclasses
import re
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.files.annotation_files import AnnotationRecord
from stereopsis.benchmarks.files.by_words import places_by_words
from stereopsis.benchmarks.files.predictions import PredictedSample, PredictionFile
from stereopsis.benchmarks.files.strict_json import refuse_repeated, some
from stereopsis.benchmarks.registry import benchmark_named
from stereopsis.errors import StereopsisError

SAME_BOX = 0.01
"""Metres within which two writings of one true box may differ (files round)."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
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


def paired(file: PredictionFile, records: Sequence[AnnotationRecord]) -> tuple[list[Pair], list[str]]:
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
    nameless = [sample for sample in file.samples if sample.words]
    by_words = dict(
        zip(
            (sample.id for sample in nameless),
            places_by_words(nameless, annotations, benchmark_named(annotations[0].task)),
            strict=True,
        )
    )
    for sample in file.samples:
        if sample.words:
            place = by_words[sample.id]
        elif sample.by_place:
            place = _place_of(file, sample, annotations)
        else:
            place = by_id.get(sample.id)
        if place is None and not sample.words and not sample.by_place:
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
        Pair(
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


def _place_of(file: PredictionFile, sample: PredictedSample, annotations: Sequence[Annotation]) -> int | None:
    """Where a sample that is known by its place in the data set stands; its answer there must be the annotation's.

    Raises:
        StereopsisError: the annotation at that place has other answers.
    """
    place = int(sample.id) if sample.id.isdecimal() else len(annotations)
    if place >= len(annotations):
        return None
    accepted = {text.strip() for text in annotations[place].answers}
    if sample.references and not accepted & {text.strip() for text in sample.references}:
        raise StereopsisError(
            f"{sample.where}: place {place} of the data set is '{annotations[place].id}' here, whose answer is not "
            f"'{sample.references[0]}'; {file.path.name} was made from another file, or from one in another order: "
            "give the annotations that were predicted"
        )
    return place


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


def _require_same_truth(file: PredictionFile, pair: Pair) -> None:
    """A name that is a place in a list only means something if both files list the samples in the same order."""
    sample = pair.sample
    if sample is None or not pair.renamed or pair.truth is None or sample.true_boxes is None:
        return
    if not same_boxes(pair.truth, sample.true_boxes):
        raise StereopsisError(
            f"{sample.where}: its id stands for '{pair.annotation.id}', but its gt_response is another box than that "
            f"annotation's; {file.path.name} was made from another file, or from one in another order: give the "
            "annotations that were predicted"
        )


def same_boxes(first: Float[np.ndarray, "first 6"], second: Float[np.ndarray, "second 6"]) -> bool:
    """Whether two lists hold the same boxes, in any order."""
    near = (np.abs(first[:, None] - second[None]) <= SAME_BOX).all(axis=2)
    return len(first) == len(second) and bool(near.any(axis=1).all() and near.any(axis=0).all())
