"""A stand-in for a 3D detector: noisy, incomplete, partly wrong boxes for grounding.

No detector runs on procedural rooms. Each listed object's exact box is disturbed (centre by a normal deviate
of 4 cm per axis, size by a factor with a deviation of 6 %), one in twenty is missed, and one to three false
boxes are added, in free space or on parts of objects. Scores overlap: true boxes score 0.75 on average, false
ones 0.45.
"""

import numpy as np

from stereopsis.scenes.rooms.catalogue import CATEGORIES
from stereopsis.scenes.scene import Proposal, SceneObject

CENTRE_DEVIATION = 0.04
SIZE_DEVIATION = 0.06
MISSED = 0.05


def detect(seed: int, objects: tuple[SceneObject, ...], size: tuple[float, float, float]) -> tuple[Proposal, ...]:
    """Proposals for a room, best score first; the same seed and objects give the same proposals."""
    rng = np.random.default_rng([seed, 0, 5])
    found = []
    for item in objects:
        centre = item.box[:3] + rng.normal(0.0, CENTRE_DEVIATION, 3)
        extent = item.box[3:] * np.exp(rng.normal(0.0, SIZE_DEVIATION, 3))
        score = rng.normal(0.75, 0.12)
        if rng.random() >= MISSED:
            found.append((np.concatenate([centre, extent]), score, item.label))
    for _ in range(int(rng.integers(1, 4))):
        label = CATEGORIES[rng.integers(len(CATEGORIES))]
        if objects and rng.random() < 0.5:
            host = objects[rng.integers(len(objects))].box
            share = rng.uniform(0.25, 0.45, 3)
            box = np.concatenate([host[:3] + rng.uniform(-0.3, 0.3, 3) * host[3:], host[3:] * share])
        else:
            extent = rng.uniform(0.2, 0.9, 3)
            box = np.concatenate([rng.uniform(0.15, 0.85, 2) * size[:2], [extent[2] / 2], extent])
        found.append((box, rng.normal(0.45, 0.15), label))
    found.sort(key=lambda entry: -entry[1])
    return tuple(Proposal(box=box, score=float(np.clip(score, 0.05, 0.99)), label=label) for box, score, label in found)
