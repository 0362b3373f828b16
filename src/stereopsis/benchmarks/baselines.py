"""What needs no model: the most frequent answer, and the expected score of a random proposal."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import numpy as np

from stereopsis.benchmarks.boxes import IOU_THRESHOLDS, evaluated_iou
from stereopsis.benchmarks.records import Prediction
from stereopsis.errors import StereopsisError
from stereopsis.scenes.annotations import Annotation, Task


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
    of_type: dict[tuple[Task, str], Counter[str]] = defaultdict(Counter)
    of_task: dict[Task, Counter[str]] = defaultdict(Counter)
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
    """The exact expected score of one proposal picked uniformly at random, in the grounding task's metrics.

    scanrefer: the share of proposals whose IoU with the target reaches the threshold. multi3drefer: the mean
    F1 of one proposal, 2 / (1 + targets) where it hits any target; 0 where nothing is there to find, as a
    guess always names something. Without proposals: wrong, or right if nothing is there.

    Raises:
        StereopsisError: the task is not a grounding task.
    """
    task, targets = prediction.annotation.task, len(prediction.targets)
    if task == "scanrefer":
        name, worth, unpicked = "acc", 1.0, 0.0
    elif task == "multi3drefer":
        name, worth, unpicked = "f1", 2.0 / (1 + targets), float(targets == 0)
    else:
        raise StereopsisError(f"{prediction.label}: chance is defined for scanrefer and multi3drefer")
    if len(prediction.boxes) == 0:
        return {f"{name}@{threshold}": unpicked for threshold in IOU_THRESHOLDS}
    best = evaluated_iou(prediction.boxes, prediction.targets).max(axis=1, initial=0.0)
    return {f"{name}@{limit}": worth * float(np.mean(best >= limit)) for limit in IOU_THRESHOLDS}
