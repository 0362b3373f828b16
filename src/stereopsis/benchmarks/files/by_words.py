"""Which annotation a sample answers, where a file has no ids: told from scene, words, object and references."""

import string
from collections.abc import Sequence

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.benchmark import Benchmark
from stereopsis.benchmarks.files.predictions import PredictedSample


def places_by_words(
    samples: Sequence[PredictedSample], annotations: Sequence[Annotation], benchmark: Benchmark
) -> list[int | None]:
    """For each sample the place of the annotation that it answers; None where there is none (left).

    A sample fits an annotation of its scene whose text stands in the sample's words, about the same objects, with the
    same references, as far as the file says them. Of several the one with the longest text is taken, then one whose
    situation stands there too, then the first. Annotations that agree in all of this are worth the same whichever of
    their answers each gets, so a benchmark's figures do not depend on the order.
    """
    by_scene: dict[str, list[int]] = {}
    for place, annotation in enumerate(annotations):
        by_scene.setdefault(annotation.scene_id, []).append(place)
    asked = [bare(annotation.text) for annotation in annotations]
    found: list[int | None] = []
    for sample in samples:
        words = bare(sample.words)
        open_places = by_scene.get(sample.scene_id, [])
        fitting = [p for p in open_places if asked[p] in words and _same_matter(annotations[p], sample, benchmark)]
        best = max(fitting, key=lambda p: (len(asked[p]), bare(annotations[p].situation) in words, -p), default=None)
        if best is not None:
            open_places.remove(best)
        found.append(best)
    return found


def bare(text: str) -> str:
    """Blanks made one, and no punctuation at the end, which Chat-Scene takes off descriptions."""
    return " ".join(text.split()).rstrip(string.punctuation)


def _same_matter(annotation: Annotation, sample: PredictedSample, benchmark: Benchmark) -> bool:
    if sample.about is not None:
        return set(sample.about) == set(annotation.object_ids)
    return benchmark.points or not sample.references or sorted(sample.references) == sorted(annotation.answers)
