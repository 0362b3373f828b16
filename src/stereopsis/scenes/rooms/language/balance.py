"""Questions are drawn so that their words say little about their answers.

Every question that could be asked is a `Candidate` with an answer class and the cues that a reader without
eyes could use: the category asked about, the colour, the side, the form of the question. A weight per (type,
cue, answer class) is fitted over many rooms by iterative proportional fitting (Deming and Stephan 1940), so
that after the weighted draw the answers to each cue are close to uniform. A cue that (nearly) always has one
answer is never used. A cue "CUE=CLASS" brings a class of its own: of two that are compared, which one wins.
"""

import dataclasses
import functools
import gzip
import importlib.resources
import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from stereopsis.errors import SceneError

Weights = Mapping[str, Mapping[str, Mapping[str, float]]]  # type -> cue -> answer class -> weight
FEW = 4  # answers: as many as there are directions
WEIGHTS_FILE = "balance.json.gz"


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """A record's words, not yet numbered.

    Attributes:
        text: question or expression.
        answers: accepted ones, the canonical one first.
        object_ids: what it is about.
        kind: the record's type, where it is finer than the candidate's.
        situation: index into the room's situations; -1 = none.
        options: lettered choices; empty where the answer is free.
    """

    text: str
    answers: tuple[str, ...] = ()
    object_ids: tuple[int, ...] = ()
    kind: str = ""
    situation: int = -1
    options: tuple[str, ...] = ()


class Candidate(NamedTuple):
    """Something that could truthfully be asked.

    Attributes:
        type: which quota it counts to.
        answer: its answer class; "" where there is nothing to guess, and so nothing to balance.
        cues: what a reader of the words alone can see.
        draft: writes the words; None when the wording fails.
        topic: candidates of one type and topic are alternatives; at most one of them is drawn.
    """

    type: str
    answer: str
    cues: tuple[str, ...]
    draft: Callable[[random.Random], Draft | None]
    topic: str = ""

    def judged(self) -> Iterator[tuple[str, str]]:
        """Each cue with the answer class that it must not give away."""
        for cue in self.cues:
            name, _, own = cue.partition("=")
            yield name, own or self.answer


def draw(
    candidates: Sequence[Candidate], quota: Mapping[str, int], weights: Weights, rng: random.Random
) -> list[tuple[Candidate, Draft]]:
    """Draw up to the quota of each type without replacement.

    A candidate's weight w is the product over its cues. It is dropped with probability 1 - w where w < 1, and
    preferred in proportion to w otherwise (exponential order statistics, Efraimidis and Spirakis 2006).
    """
    ranked: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for index, candidate in enumerate(candidates):
        weight = weight_of(candidate, weights)
        chance, order = rng.random(), rng.random()
        if chance < weight and candidate.type in quota:
            ranked[candidate.type].append((-math.log(1.0 - order) / weight, index))
    drawn: list[tuple[Candidate, Draft]] = []
    for kind, entries in ranked.items():
        drawn.extend(_take(sorted(entries), candidates, quota[kind], rng))
    return drawn


def _take(
    entries: list[tuple[float, int]], candidates: Sequence[Candidate], most: int, rng: random.Random
) -> list[tuple[Candidate, Draft]]:
    taken: list[tuple[Candidate, Draft]] = []
    said: set[str] = set()
    for _, index in entries:
        if len(taken) == most:
            break
        candidate = candidates[index]
        if candidate.topic and candidate.topic in said:
            continue
        draft = candidate.draft(rng)
        if draft is None or draft.text in said:
            continue
        said.update((draft.text, candidate.topic))
        taken.append((candidate, draft))
    return taken


def weight_of(candidate: Candidate, weights: Weights) -> float:
    """Product of the candidate's fitted weights; 1 for cues that the fit never met, 0 for an empty row's."""
    rows = weights.get(candidate.type)
    if rows is None:
        return 1.0
    weight = rows[""].get(candidate.answer, 1.0) if "" in rows else 1.0
    for cue, answer in candidate.judged():
        row = rows.get(cue)
        if row is not None:
            weight *= row.get(answer, 1.0) if row else 0.0
    return weight


def fit(
    rooms: Sequence[Sequence[Candidate]],
    quota: Mapping[str, int],
    seed: int,
    rounds: int = 40,
    least: int = 8,
) -> dict[str, dict[str, dict[str, float]]]:
    """Fit the weights over rooms' candidates.

    Args:
        rooms: the candidates of many rooms.
        quota: most drawn of each type in a room.
        seed: of the draws.
        rounds: rounds of draw, count, update.
        least: cues that fewer than this many candidates bear keep weight 1.

    Raises:
        SceneError: no rooms.
    """
    if not rooms:
        raise SceneError("cannot fit the answer balance on no rooms; pass at least a few hundred")
    weights: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    while True:  # what leaves with one telling cue may make another one telling
        available = {key: met for key, met in _count(rooms).items() if sum(met.values()) >= least}
        telling = [key for key, met in available.items() if len(_common(met)) == 1]
        if not telling:
            break
        for kind, cue in telling:
            weights[kind][cue] = {}
        rooms = [[c for c in room if weight_of(c, weights) > 0] for room in rooms]
    for (kind, cue), met in available.items():
        weights[kind][cue] = dict.fromkeys(met, 1.0)
    for step in range(rounds):
        rng = random.Random(f"{seed}-{step}")
        seen = _count([[c for c, _ in draw(room, quota, weights, rng)] for room in rooms])
        pace = 0.25 if step < rounds * 2 // 3 else 0.1
        for (kind, cue), met in available.items():
            _update(weights[kind][cue], seen.get((kind, cue), {}), met, pace)
    return dict(weights)


def _update(row: dict[str, float], seen: Mapping[str, int], available: Mapping[str, int], pace: float) -> None:
    """Move one cue's weights towards equal counts.

    A candidate bears several cues that move at once, so each moves by a part of what it would need alone.
    With few answers the scarcest keeps weight 1, so that only the others are thinned out; with more, the
    geometric mean over what is available stays 1.
    """
    goal = _shares(sum(seen.values()), available)
    for answer in row:
        ratio = (goal[answer] + 3.0) / (seen.get(answer, 0) + 3.0)
        row[answer] = min(max(row[answer] * ratio**pace, 0.01), 100.0)
    if len(row) <= FEW:
        scale = max(row[answer] for answer in _common(available))
    else:
        logs = sum(math.log(weight) * available[answer] for answer, weight in row.items())
        scale = math.exp(logs / sum(available.values()))
    for answer in row:
        row[answer] /= scale


def _common(available: Mapping[str, int]) -> list[str]:
    """The answers that are no oddities: of each there is at least a tenth of the mean."""
    return [answer for answer, count in available.items() if count * len(available) * 10 >= sum(available.values())]


def _shares(total: int, available: Mapping[str, int], most: float = 0.7) -> dict[str, float]:
    """How often each answer shall be drawn: equally often, as far as there is enough of it.

    An answer gives at most the part `most` of what there is of it. Where answers are few (yes and no, left and
    right) the others then come down to that of the scarcest common one; where they are many (categories, counts)
    the others share the rest, or a rare one would silence them all.
    """
    if len(available) <= FEW:
        equal = min(total / len(available), *(most * available[answer] for answer in _common(available)))
        return {answer: min(equal, most * count) for answer, count in available.items()}
    shares: dict[str, float] = {}
    for rank, answer in enumerate(sorted(available, key=lambda a: (available[a], a))):
        equal = (total - sum(shares.values())) / (len(available) - rank)
        shares[answer] = min(equal, most * available[answer])
    return shares


def _count(rooms: Sequence[Sequence[Candidate]]) -> dict[tuple[str, str], dict[str, int]]:
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for room in rooms:
        for candidate in room:
            for cue, answer in (("", candidate.answer), *candidate.judged()):
                if answer:
                    counts[candidate.type, cue][answer] += 1
    return counts


def write_weights(weights: Mapping[str, Weights], path: Path) -> None:
    """Write fitted weights per family ("room", "view", "video"), the same bytes for the same weights."""

    def rounded(value: Mapping | float) -> object:
        if isinstance(value, Mapping):
            return {key: rounded(value[key]) for key in sorted(value)}
        return float(f"{value:.3g}")

    text = json.dumps(rounded(weights), separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


@functools.lru_cache(maxsize=3)
def shipped_weights(family: Literal["room", "view", "video"]) -> Weights:
    """The weights that belong to this version of the rooms; empty before the first fit."""
    file = importlib.resources.files(__package__ or "").joinpath(WEIGHTS_FILE)
    return json.loads(gzip.decompress(file.read_bytes())).get(family, {}) if file.is_file() else {}
