"""Evaluation: every scene is encoded once, all its questions reuse the cached prefix."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.benchmarks import Prediction, SampleScore, Summary, score, summarise
from stereopsis.benchmarks.baselines import chance_scores, majority_answers
from stereopsis.benchmarks.scan2cap.metric import IOU_THRESHOLD, query_box
from stereopsis.data.pack import Conversation, candidate_boxes, conversation_of
from stereopsis.models.inference import EnteredScene
from stereopsis.models.packs import PackConfig, build_pack
from stereopsis.models.spatial import SpatialModel
from stereopsis.scenes.annotations import Annotation
from stereopsis.scenes.scene import Scene

GROUNDING_TASKS = ("scanrefer", "multi3drefer")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Predictions, what each was worth, and the table's numbers."""

    predictions: Sequence[Prediction]
    samples: Sequence[SampleScore]
    summaries: dict[Any, Summary]


def targets_of(annotation: Annotation, scene: Scene) -> Float[np.ndarray, "targets 6"]:
    """True boxes of an annotation's objects."""
    boxes = [scene.object(i).box for i in annotation.object_ids]
    return np.stack(boxes) if boxes else np.zeros((0, 6))


def predict_scene(
    model: SpatialModel, scene: Scene, config: PackConfig, *, batch: int = 32, max_new_tokens: int = 32
) -> list[Prediction]:
    """Answer everything that is asked about one scene.

    Scan2Cap's query box is the proposal that fits the object best; where none reaches IoU 0.5 the caption stays
    empty (protocol ``strict``).

    Args:
        model: a trained model.
        scene: with annotations.
        config: which views, proposals and tasks.
        batch: conversations per pass.
        max_new_tokens: longest answer.
    """
    annotations = [a for a in scene.annotations if a.task in config.tasks]
    if not annotations:
        return []
    room = EnteredScene(model, build_pack(scene, dataclasses.replace(config, tasks=())))
    boxes = candidate_boxes(scene, config.proposals)
    spoken: list[tuple[Annotation, Conversation]] = []
    pointed: list[tuple[Annotation, Conversation]] = []
    predictions: list[Prediction] = []
    for annotation in annotations:
        conversation = conversation_of(annotation, scene, boxes)
        if annotation.task in GROUNDING_TASKS:
            pointed.append((annotation, conversation))
        elif annotation.task == "scan2cap":
            query = query_box(boxes, targets_of(annotation, scene)[0])
            if query is None or query.iou < IOU_THRESHOLD:
                predictions.append(Prediction(annotation=annotation, targets=targets_of(annotation, scene)))
            else:
                x, y, z = (float(v) for v in query.box[:3])
                spoken.append((annotation, dataclasses.replace(conversation, point=(x, y, z))))
        else:
            spoken.append((annotation, conversation))
    for group in _groups(spoken, batch):
        texts = room.answer([c for _, c in group], max_new_tokens=max_new_tokens)
        predictions += [_spoken(a, scene, boxes, text) for (a, _), text in zip(group, texts, strict=True)]
    for group in _groups(pointed, batch):
        found = room.score_proposals([c for _, c in group])
        for (annotation, _), result in zip(group, found, strict=True):
            predictions.append(
                Prediction(
                    annotation=annotation,
                    boxes=boxes,
                    scores=result.cosines.numpy().astype(np.float64),
                    zero_target_score=result.zero_cosine,
                    targets=targets_of(annotation, scene),
                )
            )
    order = {a.id: i for i, a in enumerate(annotations)}
    return sorted(predictions, key=lambda p: order[p.annotation.id])


def _spoken(annotation: Annotation, scene: Scene, boxes: np.ndarray, text: str) -> Prediction:
    targets = targets_of(annotation, scene)
    if annotation.task != "scan2cap":
        return Prediction(annotation=annotation, text=text, targets=targets)
    query = query_box(boxes, targets[0])
    assert query is not None
    return Prediction(annotation=annotation, text=text, boxes=query.box[None], targets=targets)


def _groups(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """Chunks of items of similar prompt length, so that little is padded."""
    ordered = sorted(items, key=lambda item: len(item[1].prompt))
    return (ordered[i : i + size] for i in range(0, len(ordered), size))


def evaluate(predict: Callable[[Scene], list[Prediction]], scenes: Iterable[Scene]) -> Evaluation:
    """Predict and score a set of scenes.

    Args:
        predict: scene -> predictions; see `predict_scene`, `majority_predictor`, `chance_evaluation`.
        scenes: with annotations.
    """
    predictions = [p for scene in scenes for p in predict(scene)]
    samples = score(predictions)
    return Evaluation(predictions=predictions, samples=samples, summaries=summarise(samples))


def majority_predictor(train: Iterable[Annotation], config_tasks: Sequence[str]) -> Callable[[Scene], list[Prediction]]:
    """The most frequent training answer of each question type, for the tasks that are answered in words."""
    spoken = [a for a in train if a.task not in GROUNDING_TASKS]
    answer = majority_answers(spoken)

    def predict(scene: Scene) -> list[Prediction]:
        predictions = []
        for annotation in scene.annotations:
            if annotation.task in config_tasks and annotation.task not in GROUNDING_TASKS:
                targets = targets_of(annotation, scene)
                boxes = targets if annotation.task == "scan2cap" else np.zeros((0, 6))
                predictions.append(
                    Prediction(annotation=annotation, text=answer(annotation), boxes=boxes, targets=targets)
                )
        return predictions

    return predict


def chance_rates(scenes: Iterable[Scene], proposals: str) -> dict[str, dict[str, float]]:
    """Expected grounding score of a proposal picked at random, in points, per task and metric."""
    found: dict[str, dict[str, list[float]]] = {}
    for scene in scenes:
        boxes = candidate_boxes(scene, proposals)
        for annotation in scene.annotations:
            if annotation.task in GROUNDING_TASKS:
                prediction = Prediction(annotation=annotation, boxes=boxes, targets=targets_of(annotation, scene))
                for name, value in chance_scores(prediction).items():
                    found.setdefault(annotation.task, {}).setdefault(name, []).append(value)
    return {task: {k: 100 * float(np.mean(v)) for k, v in metrics.items()} for task, metrics in found.items()}
