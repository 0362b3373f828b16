"""Predictions of whole scenes in memory, and what needs no model to compare with."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, SampleScore, Summary, benchmark_named, score, summarise
from stereopsis.benchmarks.scoring.baselines import chance_scores, majority_answers
from stereopsis.data.pack import candidate_boxes
from stereopsis.evaluation.predictors import MAX_NEW_TOKENS, ModelPredictor, require
from stereopsis.evaluation.questions import key_of, targets_of
from stereopsis.models.inference import MOST_TOGETHER
from stereopsis.models.spatial import SpatialModel
from stereopsis.packs.build import PackConfig
from stereopsis.scenes.scene import Scene


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Predictions, what each was worth, and the table's numbers."""

    predictions: Sequence[Prediction]
    samples: Sequence[SampleScore]
    summaries: dict[Any, Summary]


def predict_scene(
    model: SpatialModel,
    scene: Scene,
    config: PackConfig,
    *,
    batch: int = MOST_TOGETHER,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[Prediction]:
    """Answer everything that is asked about one scene, in its order; see `ModelPredictor`.

    Args:
        model: a trained model.
        scene: with annotations.
        config: which views, proposals and tasks.
        batch: at most so many questions per pass.
        max_new_tokens: longest answer or caption.

    Raises:
        StereopsisError: a question got no usable answer.
    """
    annotations = [a for a in scene.annotations if a.task in config.tasks]
    if not annotations:
        return []
    predictor = ModelPredictor(
        model, config, most=batch, max_new_tokens=max_new_tokens, max_caption_tokens=max_new_tokens
    )
    passes = predictor.passes(scene, annotations, predictor.prepare(scene))
    predictions = require([outcome for each in passes for outcome in each.run()])
    order = {key_of(a): i for i, a in enumerate(annotations)}
    return sorted(predictions, key=lambda p: order[key_of(p.annotation)])


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
    spoken = [a for a in train if not benchmark_named(a.task).points]
    answer = majority_answers(spoken)

    def predict(scene: Scene) -> list[Prediction]:
        predictions = []
        for annotation in scene.annotations:
            benchmark = benchmark_named(annotation.task)
            if annotation.task in config_tasks and not benchmark.points:
                targets = targets_of(annotation, scene)
                boxes = targets if benchmark.captions else np.zeros((0, 6))
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
            if benchmark_named(annotation.task).points:
                prediction = Prediction(annotation=annotation, boxes=boxes, targets=targets_of(annotation, scene))
                for name, value in chance_scores(prediction).items():
                    found.setdefault(annotation.task, {}).setdefault(name, []).append(value)
    return {task: {k: 100 * float(np.mean(v)) for k, v in metrics.items()} for task, metrics in found.items()}
