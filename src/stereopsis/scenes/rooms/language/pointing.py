"""Questions that point: what is at a place that is given by its coordinates.

No word of these questions tells which object is meant; only where things are does. A model that is given coordinates
looks the place up, one that is not must have worked out from pictures where its views look. Rooms have these questions
only where somebody asks for them: they are no benchmark's, and stand in ScanQA's form (about an object's centre) or
SQA3D's (about a free spot on the floor, where somebody stands).
"""

import dataclasses
import random

import numpy as np

from stereopsis.annotations import COORD_TOKEN, Annotation
from stereopsis.scenes.rooms.language.config import Margins
from stereopsis.scenes.rooms.language.facts import Facts, bits, box_distance, clear_minimum, gather
from stereopsis.scenes.rooms.language.situated import answer_names
from stereopsis.scenes.rooms.language.situations import FreeFloor
from stereopsis.scenes.scene import Scene

_WHAT = (f"what is at {COORD_TOKEN} ?", f"which object is at {COORD_TOKEN} ?")
_COLOUR = (f"what colour is the thing at {COORD_TOKEN} ?", f"what is the colour of the object at {COORD_TOKEN} ?")
_NEAREST = ("what is the closest thing to me?", "which object is closest to me?")
_STANDING = f"i am standing at {COORD_TOKEN} ."


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointingConfig:
    """How much is pointed at.

    Attributes:
        at_what: most questions what an object is.
        at_colour: most questions what colour an object has.
        standing_what: most questions what is closest to a place on the floor.
        margins: how clear a fact must be.
    """

    at_what: int = 8
    at_colour: int = 8
    standing_what: int = 4
    margins: Margins = dataclasses.field(default_factory=Margins)


def pointing_questions(scene: Scene, seed: int, config: PointingConfig = PointingConfig()) -> tuple[Annotation, ...]:
    """Ask what is where, of clearly visible objects.

    Args:
        scene: objects with boxes and the rooms' attributes; its frames are not opened.
        seed: the same scene, seed and config give the same records.
        config: how much is asked.
    """
    rng = random.Random(f"pointing {seed}")
    facts = gather(scene, config.margins)
    clear = list(bits(facts.clear))
    coloured = [i for i in clear if facts.word("colour", i) is not None]
    found: list[Annotation] = []

    def ask(kind: str, text: str, answers: tuple[str, ...], index: int) -> None:
        found.append(
            Annotation(
                id=f"{scene.id}-at-{len(found):03d}",
                task="scanqa",
                scene_id=scene.id,
                type=kind,
                text=text,
                answers=answers,
                object_ids=(facts.objects[index].id,),
            )
        )

    for i in rng.sample(clear, min(config.at_what, len(clear))):
        ask("at_what", rng.choice(_WHAT), answer_names(facts, i), i)
    for i in rng.sample(coloured, min(config.at_colour, len(coloured))):
        ask("at_colour", rng.choice(_COLOUR), (str(facts.word("colour", i)),), i)
    for x, y, i in _standing(facts, config.standing_what, rng):
        ask("standing_what", rng.choice(_NEAREST), answer_names(facts, i), i)
        found[-1] = dataclasses.replace(found[-1], task="sqa3d", situation=_STANDING, position=(x, y, 0.0))
    return tuple(found)


def _standing(facts: Facts, most: int, rng: random.Random) -> list[tuple[float, float, int]]:
    """Free places on the floor, and what is closest to each: by centre and by side, with a margin."""
    if not facts.objects:
        return []
    floor = FreeFloor(facts)
    found: list[tuple[float, float, int]] = []
    for _ in range(20 * most):
        if len(found) == most:
            break
        spot = np.array([rng.uniform(*sorted(side)) for side in zip(floor.low, floor.high, strict=True)])
        if not floor.free(spot[None])[0]:
            continue
        sides = box_distance(np.concatenate([spot, np.zeros(4)])[None], facts.boxes, axes=2)[0]
        centres = np.hypot(*(facts.boxes[:, :2] - spot).T)
        tables = [[(float(distance), j) for j, distance in enumerate(table)] for table in (sides, centres)]
        one, other = (clear_minimum(table, facts.margins) for table in tables)
        if one is not None and one == other and facts.clear >> one & 1:
            found.append((float(spot[0]), float(spot[1]), one))
    return found
