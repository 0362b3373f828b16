"""What benchmarks of options share: accuracy of one answer, and what a random option is worth."""

from collections.abc import Callable, Sequence

from stereopsis.benchmarks.records import Metric, Prediction, SampleScore, require_unique, sample_score

ACCURACY = Metric(name="acc", heading="Acc")


def score_choices(
    predictions: Sequence[Prediction], right: Callable[[Prediction], bool], protocol: str
) -> list[SampleScore]:
    """One accuracy per prediction, in order.

    Args:
        predictions: what was answered.
        right: whether an answer is.
        protocol: by whose rules.

    Raises:
        StereopsisError: an annotation was predicted twice.
    """
    require_unique(predictions)
    return [sample_score(each, {ACCURACY.name: float(right(each))}, protocol=protocol) for each in predictions]


def chance_of_options(prediction: Prediction, metric: str = ACCURACY.name) -> dict[str, float]:
    """The expected value of an option picked at random; nothing where a question has no options."""
    options = prediction.annotation.options
    return {metric: 1.0 / len(options)} if options else {}


def chances(predictions: Sequence[Prediction], chance: Callable[[Prediction], dict[str, float]]) -> dict[str, float]:
    """Question type -> what a random option is worth there, points; types with questions without options are left out.

    Args:
        predictions: of one benchmark.
        chance: its `Benchmark.chance`.
    """
    by_type: dict[str, list[float | None]] = {}
    for each in predictions:
        by_type.setdefault(each.annotation.type, []).append(next(iter(chance(each).values()), None))
    known = {kind: [value for value in found if value is not None] for kind, found in sorted(by_type.items())}
    return {
        kind: 100.0 * sum(values) / len(values)
        for kind, values in known.items()
        if values and len(values) == len(by_type[kind])
    }
