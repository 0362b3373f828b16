"""One scene's views once, then K conversations: the unit of training and evaluation."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from stereopsis.annotations import COORD_TOKEN, GROUND_TOKEN, Annotation
from stereopsis.benchmarks import all_benchmarks, prompt_of, target_of
from stereopsis.data.batch import SceneProposals
from stereopsis.geometry import iou
from stereopsis.scenes.scene import Scene

POINTS, POINTS_VALID = "view_points", "view_points_valid"
"""Targets that hold the true mean point of every cell, whatever coordinates the model is given."""
GROUND = "birdseye_cells"
"""Target that holds x and y of every bird's-eye cell's centre, aligned frame, metres."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversation:
    """One turn about a scene.

    Attributes:
        id: the annotation's id.
        task: which benchmark's form it has.
        prompt: the user's words.
        answer: what the model should say; GROUND_TOKEN alone for grounding.
        point: aligned-frame point that the prompt's <coord> stands for, metres, or None.
        positives: indices of the right proposals (grounding); empty = the zero target.
    """

    id: str
    task: str
    prompt: str
    answer: str
    point: tuple[float, float, float] | None = None
    positives: tuple[int, ...] = ()

    @property
    def grounds(self) -> bool:
        """Whether the answer points instead of speaking."""
        benchmark = all_benchmarks().get(self.task)
        return self.answer == GROUND_TOKEN and (benchmark is None or benchmark.kind == "pointing")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScenePack:
    """A scene as tensors, with the conversations that share its views.

    Attributes:
        scene_id: which scene.
        frame_names: the views' names.
        images: [views 3 height width].
        coordinates: [views rows cols 3] aligned frame, metres.
        coordinates_valid: [views rows cols].
        cameras: [views 4 4] camera to aligned frame.
        intrinsics: [views 3 3].
        proposals: candidate boxes and the encoder cells that see them.
        encoder_tokens: [views enc_rows enc_cols enc_dim] cached vision tower output, or None.
        view_targets: teachers' targets, first axis views.
        scene_targets: teachers' targets of the whole scene.
        conversations: what is said; empty for vision-only scenes.
    """

    scene_id: str
    frame_names: tuple[str, ...]
    images: UInt8[Tensor, "views 3 height width"]
    coordinates: Float[Tensor, "views rows cols 3"]
    coordinates_valid: Bool[Tensor, "views rows cols"]
    cameras: Float[Tensor, "views 4 4"]
    intrinsics: Float[Tensor, "views 3 3"]
    proposals: SceneProposals
    encoder_tokens: Float[Tensor, "views enc_rows enc_cols enc_dim"] | None = None
    view_targets: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    scene_targets: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    conversations: tuple[Conversation, ...] = ()

    def replace(self, **changes) -> "ScenePack":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def select_views(self, indices: Sequence[int]) -> "ScenePack":
        """The same scene seen through some of its views only."""
        chosen = torch.as_tensor(list(indices), dtype=torch.int64)
        return self.replace(
            frame_names=tuple(self.frame_names[i] for i in indices),
            images=self.images[chosen],
            coordinates=self.coordinates[chosen],
            coordinates_valid=self.coordinates_valid[chosen],
            cameras=self.cameras[chosen],
            intrinsics=self.intrinsics[chosen],
            proposals=self.proposals.select_views(chosen),
            encoder_tokens=None if self.encoder_tokens is None else self.encoder_tokens[chosen],
            view_targets={key: value[chosen] for key, value in self.view_targets.items()},
        )


def candidate_boxes(scene: Scene, source: str) -> Float[np.ndarray, "boxes 6"]:
    """Boxes that grounding chooses from.

    Args:
        scene: the scene.
        source: "objects" (ground truth, as the papers train) or "detector" (the scene's proposals, as they evaluate).
    """
    if source == "detector" and scene.proposals:
        return np.stack([p.box for p in scene.proposals])
    return np.stack([o.box for o in scene.objects]) if scene.objects else np.zeros((0, 6))


def conversation_of(
    annotation: Annotation,
    scene: Scene,
    boxes: Float[np.ndarray, "boxes 6"],
    *,
    protocol: str | None = None,
    iou_threshold: float = 0.5,
) -> Conversation:
    """Turn an annotation into prompt, answer and positives.

    A proposal is right when its IoU with a target object's box reaches ``iou_threshold``. A <coord> in the prompt
    stands for the place where the asker is, or else for the centre of the first object that the answer is about.

    Args:
        annotation: what is asked.
        scene: what it is asked about.
        boxes: candidates.
        protocol: the benchmark's, in whose words it is asked; None = the default.
        iou_threshold: see above.
    """
    targets = [scene.object(i).box for i in annotation.object_ids]
    positives: tuple[int, ...] = ()
    point = None
    answer = target_of(annotation)
    if answer == GROUND_TOKEN and targets and len(boxes):
        overlap = iou(boxes, np.stack(targets)).max(1)
        positives = tuple(int(i) for i in np.flatnonzero(overlap >= iou_threshold))
    prompt = prompt_of(annotation, protocol)
    places = [annotation.position] if annotation.position is not None else [target[:3] for target in targets]
    if COORD_TOKEN in prompt and places:
        x, y, z = (float(v) for v in places[0])
        point = (x, y, z)
    return Conversation(
        id=annotation.id,
        task=annotation.task,
        prompt=prompt,
        answer=answer,
        point=point,
        positives=positives,
    )
