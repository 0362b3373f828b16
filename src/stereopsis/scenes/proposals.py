"""Candidate boxes for grounding: ground truth, a detector's files, or geometry alone.

Video-3D-LLM trains on ground truth boxes and evaluates on Mask3D's; `stereopsis.scenes.detections` reads
those. For a capture that no detector has seen, `geometric_proposals` finds what stands apart in its depth
images, without categories.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from stereopsis.errors import SceneError
from stereopsis.geometry.boxes import iou
from stereopsis.geometry.clusters import ClusterConfig, propose_boxes
from stereopsis.scenes.alignment import has_alignment, scene_points
from stereopsis.scenes.scene import Proposal, Scene

SMALLEST_VOXEL, LARGEST_VOXEL = 0.05, 0.12
_COLUMNS = 320  # depth images are thinned to about this many columns


def ground_truth_proposals(scene: Scene) -> tuple[Proposal, ...]:
    """Every object's own box, with score 1 and its label, in the objects' order."""
    return tuple(Proposal(box=item.box, score=1.0, label=item.label) for item in scene.objects)


def geometric_proposals(
    scene: Scene, *, max_frames: int = 128, config: ClusterConfig | None = None
) -> tuple[Proposal, ...]:
    """What stands apart in a scene's depth images once floor, walls and ceiling are gone; best first, no labels.

    See `stereopsis.geometry.clusters.propose_boxes` for the method, and ``docs/views_and_proposals.md`` for
    how much it finds.

    Args:
        scene: aligned with gravity and walls, with depth.
        max_frames: how many frames to use, evenly spread.
        config: None: the defaults, with voxels of 1.5 times the distance between neighbouring depth pixels
            at the middle depth, between 5 and 12 cm.

    Raises:
        SceneError: the scene is not aligned, or no frame has usable depth.
        FrameError: an image cannot be used.
    """
    if not has_alignment(scene):
        raise SceneError(
            f"scene '{scene.id}' is not aligned with gravity: boxes along the axes would mean nothing; align it "
            "first with stereopsis.scenes.alignment.align_scene, or give it T_aligned_world"
        )
    camera = scene.frames[0].depth_intrinsics or scene.frames[0].intrinsics
    stride = max(1, camera.width // _COLUMNS)
    cloud = scene_points(scene, max_frames=max_frames, stride=stride)
    if not len(cloud.points):
        raise SceneError(f"scene '{scene.id}': no depth pixel is valid; check its depth images and their units")
    if config is None:
        spacing = _middle_depth(scene) * stride / camera.fx
        config = ClusterConfig(voxel=float(np.clip(1.5 * spacing, SMALLEST_VOXEL, LARGEST_VOXEL)))
    try:
        found = propose_boxes(cloud.points, config)
    except ValueError as error:
        raise SceneError(f"scene '{scene.id}': {error}; correct its depth images or the settings") from error
    return tuple(Proposal(box=box, score=float(score)) for box, score in zip(found.boxes, found.scores, strict=True))


def with_proposals(scene: Scene, proposals: tuple[Proposal, ...], source: str) -> Scene:
    """The scene with these candidate boxes; its provenance says where they come from.

    Args:
        scene: any scene, its other proposals are replaced.
        proposals: boxes in the aligned frame.
        source: a word for the provenance: "ground truth", "geometry", a detector's file.
    """
    provenance = {**scene.provenance, "proposals": {"source": source, "count": len(proposals)}}
    return scene.replace(proposals=proposals, provenance=provenance)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recall:
    """How many true boxes some proposal meets: `found` of `total` at an IoU of `threshold` or more."""

    threshold: float
    found: int
    total: int

    @property
    def share(self) -> float:
        """0..1; NaN where there is nothing to find."""
        return self.found / self.total if self.total else float("nan")


def proposal_recall(proposals: Float[np.ndarray, "n 6"], truth: Float[np.ndarray, "m 6"], threshold: float) -> Recall:
    """How many true boxes have a proposal with an IoU of at least `threshold`.

    Raises:
        ValueError: see `stereopsis.geometry.boxes.check_boxes`.
    """
    best = iou(truth, proposals).max(axis=1, initial=0.0)
    return Recall(threshold=threshold, found=int((best >= threshold).sum()), total=len(truth))


def _middle_depth(scene: Scene) -> float:
    """Median depth of a few frames, metres."""
    with_depth = [frame for frame in scene.frames if frame.load_depth is not None]
    medians = []
    for frame in with_depth[:: -(-len(with_depth) // 5)]:
        depth = frame.depth()
        if depth is not None and (depth > 0).any():
            medians.append(float(np.median(depth[depth > 0])))
    return float(np.median(medians)) if medians else 2.0
