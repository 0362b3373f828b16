"""What needs no model: the most frequent answer, and the expected score of a random proposal."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from stereopsis.annotations import Annotation
from stereopsis.benchmarks.records import Prediction
from stereopsis.benchmarks.registry import all_benchmarks, benchmark_named
from stereopsis.errors import StereopsisError


def majority_answers(annotations: Iterable[Annotation]) -> Callable[[Annotation], str]:
    """Learn the most frequent answer of every (task, type), and of every task for types not seen.

    An annotation counts once for each of its different answers; of equally frequent answers the
    alphabetically first wins. Grounding annotations are ignored: their answer is a box, see `chance_scores`.

    Args:
        annotations: of the training split.

    Returns:
        A function from an annotation to the answer; it raises StereopsisError for a task it has seen no
        answer of.
    """
    of_type: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    of_task: dict[str, Counter[str]] = defaultdict(Counter)
    for annotation in annotations:
        for answer in {text.strip() for text in annotation.answers} - {""}:
            of_type[annotation.task, annotation.type][answer] += 1
            of_task[annotation.task][answer] += 1
    best_of_type = {key: _most_frequent(counts) for key, counts in of_type.items()}
    best_of_task = {task: _most_frequent(counts) for task, counts in of_task.items()}

    def most_frequent_answer(annotation: Annotation) -> str:
        if annotation.task not in best_of_task:
            raise StereopsisError(
                f"no answers of task '{annotation.task}' among the training annotations; the majority "
                "baseline is for tasks answered in words (grounding has chance_scores)"
            )
        return best_of_type.get((annotation.task, annotation.type), best_of_task[annotation.task])

    return most_frequent_answer


def _most_frequent(counts: Counter[str]) -> str:
    return min(counts, key=lambda text: (-counts[text], text))


def chance_scores(prediction: Prediction) -> dict[str, float]:
    """The expected score of a guess, in the metrics of the prediction's benchmark.

    Raises:
        StereopsisError: chance is not defined for this benchmark.
    """
    chance = benchmark_named(prediction.annotation.task).chance
    if chance is None:
        able = [each.name for each in all_benchmarks().values() if each.chance is not None]
        raise StereopsisError(f"{prediction.label}: chance is defined for {' and '.join(able)}")
    return chance(prediction)
