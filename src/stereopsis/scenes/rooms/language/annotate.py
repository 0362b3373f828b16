"""From a scene to its records in the form of the benchmarks."""

import random
from collections import Counter

from stereopsis.annotations import Annotation
from stereopsis.scenes.rooms.language.balance import Candidate, Draft, Weights, draw, shipped_weights
from stereopsis.scenes.rooms.language.config import LanguageConfig
from stereopsis.scenes.rooms.language.descriptions import Names
from stereopsis.scenes.rooms.language.expressions import captions, multi_candidates, single_candidates
from stereopsis.scenes.rooms.language.facts import Facts, bits, gather
from stereopsis.scenes.rooms.language.questions import room_candidates
from stereopsis.scenes.rooms.language.situated import situated_candidates
from stereopsis.scenes.rooms.language.situations import Situation, find_situations
from stereopsis.scenes.rooms.language.video import video_candidates
from stereopsis.scenes.scene import Scene

_GROUNDING: dict[str, str] = {"unique": "scanrefer", "multiple": "scanrefer", "multi": "multi3drefer"}


def annotate(
    scene: Scene,
    seed: int,
    config: LanguageConfig = LanguageConfig(),  # noqa: B008
) -> tuple[Annotation, ...]:
    """Say true things about a scene, in the form of all benchmarks that rooms speak.

    Only objects that some view sees are spoken of, every statement holds with a margin, and the draw is
    weighted so that answers cannot be guessed from the words (`balance`).

    Args:
        scene: objects with boxes and the rooms' attributes; its frames are not opened.
        seed: the same scene, seed and config give the same records.
        config: how much is said.

    Returns:
        Records in task order, with ids "<scene>-<task>-<number>".
    """
    rng = random.Random(f"annotate {seed}")
    facts, names, situations, candidates = survey(scene, rng, config)
    weights: Weights = shipped_weights("room") if config.balanced else {}
    drawn = draw(candidates, config.quota, weights, rng)
    records = [_question(scene.id, situations, candidate, draft) for candidate, draft in drawn]
    described = list(bits(facts.clear))
    if config.captions is not None:
        described = sorted(rng.sample(described, min(config.captions, len(described))))
    for i in described:
        about = {"answers": captions(facts, names, i, rng), "object_ids": (facts.objects[i].id,)}
        records.append({"task": "scan2cap", "scene_id": scene.id, "type": "caption", **about})
    records += _about_the_video(scene, facts, names, random.Random(f"video {scene.id} {seed}"), config)
    order = ("sqa3d", "scanqa", "scan2cap", "scanrefer", "multi3drefer", "vsibench")
    records.sort(key=lambda record: order.index(record["task"]))
    number: Counter[str] = Counter()
    numbered = []
    for record in records:
        task = record["task"]
        numbered.append(Annotation(id=f"{scene.id}-{task}-{number[task]:03d}", **record))
        number[task] += 1
    return tuple(numbered)


def survey(
    scene: Scene, rng: random.Random, config: LanguageConfig
) -> tuple[Facts, Names, list[Situation], list[Candidate]]:
    """A scene's facts, names, situations, and everything that could be asked (nothing where no quota asks for it)."""
    facts = gather(scene, config.margins)
    names = Names(facts)
    if not config.quota:
        return facts, names, [], []
    situations = find_situations(facts, names, config.situations, rng) if facts.objects else []
    candidates = [
        *situated_candidates(facts, names, situations, rng),
        *room_candidates(facts, names, rng),
        *single_candidates(facts, names, rng),
        *multi_candidates(facts, names, rng),
    ]
    return facts, names, situations, candidates


def _about_the_video(
    scene: Scene, facts: Facts, names: Names, rng: random.Random, config: LanguageConfig
) -> list[dict]:
    """The records of VSI-Bench's types; they have their own draws, so that the others do not depend on them."""
    weights: Weights = shipped_weights("video") if config.balanced else {}
    drawn = draw(video_candidates(scene, facts, names, rng), config.video_quota, weights, rng)
    return [
        {
            "task": "vsibench",
            "scene_id": scene.id,
            "type": candidate.type,
            "text": draft.text,
            "options": draft.options,
            "answers": draft.answers,
            "object_ids": draft.object_ids,
        }
        for candidate, draft in drawn
    ]


def _question(scene_id: str, situations: list[Situation], candidate: Candidate, draft: Draft) -> dict:
    task = _GROUNDING.get(candidate.type, "scanqa" if draft.situation < 0 else "sqa3d")
    record: dict = {
        "task": task,
        "scene_id": scene_id,
        "type": draft.kind or candidate.type,
        "text": draft.text,
        "answers": draft.answers,
        "object_ids": draft.object_ids,
    }
    if draft.situation >= 0:
        situation = situations[draft.situation]
        record.update(situation=situation.text, position=situation.position, yaw=situation.yaw)
    return record
