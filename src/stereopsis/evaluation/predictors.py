"""Who answers: a trained model, or a dummy that follows simple rules."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Benchmark, Prediction, benchmark_named, benchmark_names, protocols_of
from stereopsis.benchmarks.scoring.boxes import CAPTION_IOU, query_box
from stereopsis.data.pack import Conversation, ScenePack, candidate_boxes, conversation_of
from stereopsis.errors import StereopsisError
from stereopsis.evaluation.questions import targets_of
from stereopsis.models.inference import MOST_TOGETHER, EnteredScene, Found
from stereopsis.models.spatial import SpatialModel
from stereopsis.packs.build import PackConfig, build_pack
from stereopsis.scenes.scene import Scene
from stereopsis.weights.fingerprint import fingerprint

MAX_NEW_TOKENS = 32
MAX_CAPTION_TOKENS = 96
NO_PART_OF_ANSWERS = ("tasks", "view_cache")
"""Fields of `PackConfig` that change nothing of what a model is shown; all others belong to its identity."""
DEFAULT_PROTOCOLS: Mapping[str, str] = {task: protocol.name for task, protocol in protocols_of().items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """A question that got no usable answer, and why."""

    annotation: Annotation
    reason: str


Outcome = Prediction | Failure


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """Questions that are answered together.

    Which questions share a pass depends on the scene's whole list alone, never on what was answered before: a
    repeated pass computes the same numbers to the last bit.

    Attributes:
        annotations: the questions.
        run: answers them; one outcome per question, in order.
    """

    annotations: tuple[Annotation, ...]
    run: Callable[[], Sequence[Outcome]]


class Predictor(abc.ABC):
    """Answers questions about scenes.

    Attributes:
        protocols: benchmark -> by which of its protocols it is asked and scored; see docs/benchmarks.md.
    """

    protocols: Mapping[str, str] = DEFAULT_PROTOCOLS

    @property
    @abc.abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """All that its answers depend on beside the questions, as plain values; ``checkpoint`` names the weights."""

    def prepare(self, scene: Scene) -> Any:
        """Whatever can be read ahead while another scene is answered; runs in another thread."""
        return None

    @abc.abstractmethod
    def passes(self, scene: Scene, annotations: Sequence[Annotation], prepared: Any) -> list[Pass]:
        """Enter a scene, and divide what is asked about it into passes.

        Args:
            scene: the scene.
            annotations: everything that is asked about it, answered already or not.
            prepared: what `prepare` returned.
        """


class ModelPredictor(Predictor):
    """A trained model. Each scene is encoded once; its questions are answered greedily behind the shared prefix.

    A caption's query box is the proposal that fits the object best; where none reaches IoU 0.5 the caption stays
    empty under protocols that require a box.

    Args:
        model: a trained model.
        config: which views and proposals.
        most: at most so many questions in one pass.
        max_new_tokens: longest answer.
        max_caption_tokens: longest caption.
        protocols: benchmark -> protocol, where it is not the default.

    Raises:
        StereopsisError: there is no such protocol.
    """

    def __init__(
        self,
        model: SpatialModel,
        config: PackConfig,
        *,
        most: int = MOST_TOGETHER,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_caption_tokens: int = MAX_CAPTION_TOKENS,
        protocols: Mapping[str, str] | None = None,
    ) -> None:
        self.protocols = protocol_names(protocols)
        self.model, self.config, self.most = model, dataclasses.replace(config, tasks=()), most
        self.max_new_tokens, self.max_caption_tokens = max_new_tokens, max_caption_tokens

    @functools.cached_property
    def checkpoint(self) -> str:
        """Sha256 of weights, settings and vocabulary; training heads do not count."""
        model = self.model
        settings = dataclasses.asdict(model.settings) | {"template": model.tokenizer.chat_template}
        parts = {"settings": settings, "words": model.tokenizer.get_vocab()}
        return fingerprint({**parts, "grounding": fingerprint({}, model.grounding)}, model.backbone)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Checkpoint, everything that decides what the model is shown, and decoding."""
        shown = dataclasses.asdict(self.config)
        for name in NO_PART_OF_ANSWERS:
            del shown[name]
        return {
            "checkpoint": self.checkpoint,
            "device": self.model.device.type,
            "precision": str(self.model.grounding.zero_target.dtype).removeprefix("torch."),
            **{name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()},
            "decoding": "greedy",
            "max_new_tokens": self.max_new_tokens,
            "max_caption_tokens": self.max_caption_tokens,
            "questions_per_pass": self.most,
        }

    def prepare(self, scene: Scene) -> ScenePack:
        """Decode the scene's views."""
        return build_pack(scene, self.config)

    def passes(self, scene: Scene, annotations: Sequence[Annotation], prepared: ScenePack) -> list[Pass]:
        """Encode the scene; the passes go by benchmark, since answers of one kind are of similar length."""
        room = EnteredScene(self.model, prepared)
        boxes = candidate_boxes(scene, self.config.proposals)
        lost: list[Annotation] = []
        refused: list[Failure] = []
        spoken: list[tuple[Annotation, Conversation]] = []
        pointed: list[tuple[Annotation, Conversation]] = []
        order = benchmark_names().index
        for annotation in sorted(annotations, key=lambda a: order(a.task)):
            benchmark, rules = benchmark_named(annotation.task), self.protocols[annotation.task]
            try:
                conversation = conversation_of(annotation, scene, boxes, protocol=rules)
                room.check(conversation, max_new_tokens=max(self.max_new_tokens, self.max_caption_tokens))
            except StereopsisError as error:  # its own fault, not the scene's
                refused.append(Failure(annotation=annotation, reason=str(error)))
                continue
            if benchmark.points:
                pointed.append((annotation, conversation))
            elif not benchmark.captions:
                spoken.append((annotation, conversation))
            elif (box := captioned_box(annotation, scene, boxes, rules)) is None:
                lost.append(annotation)
            else:
                x, y, z = (float(v) for v in box[:3])
                spoken.append((annotation, dataclasses.replace(conversation, point=(x, y, z))))
        found = []
        if lost:
            silent = [self._spoken(a, scene, boxes, "") for a in lost]
            found.append(Pass(annotations=tuple(lost), run=lambda: silent))
        if refused:
            found.append(Pass(annotations=tuple(f.annotation for f in refused), run=lambda: refused))
        alike: dict[tuple[bool, int], list[tuple[Annotation, Conversation]]] = {}
        for each in spoken:
            alike.setdefault(self._longest(benchmark_named(each[0].task)), []).append(each)
        for (_, most), group in sorted(alike.items(), key=lambda item: item[0][0]):  # captions last
            found += self._grouped(room, group, functools.partial(self._speak, room, scene, boxes, most))
        return [*found, *self._grouped(room, pointed, functools.partial(self._point, room, scene, boxes))]

    def _longest(self, benchmark: Benchmark) -> tuple[bool, int]:
        """Whether a benchmark asks for captions, and how many tokens an answer may have."""
        if benchmark.captions:
            return True, self.max_caption_tokens
        return False, min(self.max_new_tokens, benchmark.max_new_tokens)

    def _spoken(self, annotation: Annotation, scene: Scene, boxes: np.ndarray, text: str) -> Prediction:
        return spoken_prediction(annotation, scene, boxes, text, self.protocols[annotation.task])

    def _grouped(
        self,
        room: EnteredScene,
        asked: Sequence[tuple[Annotation, Conversation]],
        run: Callable[[Sequence[tuple[Annotation, Conversation]]], list[Outcome]],
    ) -> list[Pass]:
        groups = room.passes([conversation for _, conversation in asked], most=self.most)
        return [
            Pass(annotations=tuple(asked[i][0] for i in group), run=functools.partial(run, [asked[i] for i in group]))
            for group in groups
        ]

    def _speak(
        self,
        room: EnteredScene,
        scene: Scene,
        boxes: np.ndarray,
        most: int,
        asked: Sequence[tuple[Annotation, Conversation]],
    ) -> list[Outcome]:
        answers = room.generate([c for _, c in asked], max_new_tokens=most)
        outcomes: list[Outcome] = []
        for (annotation, conversation), answer in zip(asked, answers, strict=True):
            if answer.broken and len(asked) > 1:  # NaN spreads over a pass: whose is it?
                (answer,) = room.generate([conversation], max_new_tokens=most)
            if answer.broken:
                outcomes.append(_failed(annotation, f"the scores of word {answer.tokens + 1} are NaN"))
            else:
                outcomes.append(self._spoken(annotation, scene, boxes, answer.text))
        return outcomes

    def _point(
        self, room: EnteredScene, scene: Scene, boxes: np.ndarray, asked: Sequence[tuple[Annotation, Conversation]]
    ) -> list[Outcome]:
        found = room.score_proposals([c for _, c in asked])
        outcomes: list[Outcome] = []
        for (annotation, conversation), result in zip(asked, found, strict=True):
            if _is_nan(result) and len(asked) > 1:
                (result,) = room.score_proposals([conversation])
            if _is_nan(result):
                outcomes.append(_failed(annotation, "the proposals' scores are NaN"))
            else:
                scores = result.cosines.numpy().astype(np.float64)
                outcomes.append(pointed_prediction(annotation, scene, boxes, scores, result.zero_cosine))
        return outcomes


class DummyPredictor(Predictor):
    """No weights: the same words for every question of a kind, and the largest box for every expression.

    It runs through everything that a model runs through, in no time: to try an evaluation's settings, files and
    processes before a model is spent on them.
    """

    def __init__(
        self,
        *,
        proposals: str = "detector",
        most: int = MOST_TOGETHER,
        protocols: Mapping[str, str] | None = None,
    ) -> None:
        self.protocols = protocol_names(protocols)
        self.proposals, self.most = proposals, most

    @property
    def identity(self) -> Mapping[str, Any]:
        """Its rules have a version where a model has weights."""
        return {"checkpoint": "dummy-1", "proposals": self.proposals, "questions_per_pass": self.most}

    def passes(self, scene: Scene, annotations: Sequence[Annotation], prepared: Any) -> list[Pass]:
        """Chunks in the scene's order."""
        boxes = candidate_boxes(scene, self.proposals)
        chunks = [tuple(annotations[i : i + self.most]) for i in range(0, len(annotations), self.most)]
        return [Pass(annotations=c, run=functools.partial(self._answer_all, scene, boxes, c)) for c in chunks]

    def _answer_all(self, scene: Scene, boxes: np.ndarray, asked: Sequence[Annotation]) -> list[Outcome]:
        return [self._answer(annotation, scene, boxes) for annotation in asked]

    def _answer(self, annotation: Annotation, scene: Scene, boxes: np.ndarray) -> Prediction:
        benchmark, rules = benchmark_named(annotation.task), self.protocols[annotation.task]
        if benchmark.points:
            volumes = boxes[:, 3:].prod(axis=1)
            scores = volumes / max(float(volumes.max(initial=0.0)), 1e-9)
            return pointed_prediction(annotation, scene, boxes, scores, 0.0)
        if benchmark.captions:
            located = captioned_box(annotation, scene, boxes, rules) is not None
            return spoken_prediction(annotation, scene, boxes, "this is a chair ." if located else "", rules)
        if annotation.options or benchmark.kind in ("choice", "number"):
            return spoken_prediction(annotation, scene, boxes, "A" if annotation.options else "2")
        question = annotation.text.strip().lower()
        if question.startswith("how many"):
            return spoken_prediction(annotation, scene, boxes, "two")
        yes_or_no = question.startswith(("is ", "are ", "can ", "does ", "do "))
        return spoken_prediction(annotation, scene, boxes, "yes" if yes_or_no else "chair")


def protocol_names(named: Mapping[str, str] | None = None) -> dict[str, str]:
    """The protocol of every benchmark by name: the one that is named, or its default.

    Raises:
        StereopsisError: a benchmark has no such protocol.
    """
    return {task: protocol.name for task, protocol in protocols_of(named).items()}


def captioned_box(
    annotation: Annotation, scene: Scene, boxes: Float[np.ndarray, "boxes 6"], protocol: str | None = None
) -> Float[np.ndarray, "6"] | None:
    """The proposal that a caption speaks of: the object's best, which must reach IoU 0.5 if the protocol says so."""
    required = benchmark_named(annotation.task).protocol(protocol).requires_box
    query = query_box(boxes, targets_of(annotation, scene)[0])
    lost = query is None or (required and query.iou < CAPTION_IOU)
    return None if query is None or lost else query.box


def spoken_prediction(
    annotation: Annotation,
    scene: Scene,
    boxes: Float[np.ndarray, "boxes 6"],
    text: str,
    protocol: str | None = None,
) -> Prediction:
    """What words mean as a prediction; a caption goes with the box that it speaks of under this protocol."""
    targets = targets_of(annotation, scene)
    box = captioned_box(annotation, scene, boxes, protocol) if benchmark_named(annotation.task).captions else None
    captioned = np.zeros((0, 6)) if box is None else box[None]
    return Prediction(annotation=annotation, text=text, boxes=captioned, targets=targets)


def pointed_prediction(
    annotation: Annotation,
    scene: Scene,
    boxes: Float[np.ndarray, "boxes 6"],
    scores: Float[np.ndarray, "boxes"],
    zero_target_score: float,
) -> Prediction:
    """What similarities mean as a prediction."""
    return Prediction(
        annotation=annotation,
        boxes=boxes,
        scores=scores,
        zero_target_score=zero_target_score,
        targets=targets_of(annotation, scene),
    )


def _is_nan(found: Found) -> bool:
    return bool(found.cosines.isnan().any()) or found.zero_cosine != found.zero_cosine


def _failed(annotation: Annotation, what: str) -> Failure:
    return Failure(annotation=annotation, reason=f"{what}; the checkpoint may be damaged, or its training diverged")


def require(outcomes: Sequence[Outcome]) -> list[Prediction]:
    """The predictions, where all are.

    Raises:
        StereopsisError: a question got no usable answer; names the first.
    """
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            raise StereopsisError(f"{outcome.annotation.task} '{outcome.annotation.id}': {outcome.reason}")
    return [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
