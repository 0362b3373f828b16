"""A reader without eyes must gain little: the weights do what they say, and held-out rooms show it."""

import itertools
import math
import random
import re
from collections import Counter, defaultdict

import pytest

from stereopsis.annotations import Annotation
from stereopsis.errors import SceneError
from stereopsis.scenes.rooms import CATEGORIES, RoomConfig, make_room
from stereopsis.scenes.rooms.language import LanguageConfig, Margins, annotate, split_seeds
from stereopsis.scenes.rooms.language.balance import (
    Candidate,
    Draft,
    draw,
    fit,
    shipped_weights,
    weight_of,
    write_weights,
)


def candidate(kind: str, answer: str, *cues: str, text: str = "", topic: str = "") -> Candidate:
    return Candidate(kind, answer, cues, lambda rng: Draft(text or str(rng.random())), topic)


def drawn_counts(candidates, weights, quota, draws=4000):
    rng = random.Random(0)
    return Counter(c.answer for _ in range(draws) for c, _ in draw(candidates, quota, weights, rng))


def test_draw_prefers_in_proportion_to_the_weights():
    """Two candidates of weights 1 and 3, one place: a quarter and three quarters."""
    weights = {"q": {"": {"a": 1.0, "b": 3.0}}}
    counts = drawn_counts([candidate("q", "a"), candidate("q", "b")], weights, {"q": 1})
    assert counts["b"] / 4000 == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 4000))


def test_draw_drops_what_weighs_less_than_one():
    """Alone, a candidate of weight 0.2 is drawn in a fifth of the rooms; weights of several cues multiply."""
    weights = {"q": {"": {"a": 0.4}, "x": {"a": 0.5}}}
    assert weight_of(candidate("q", "a", "x", "never met"), weights) == pytest.approx(0.2)
    counts = drawn_counts([candidate("q", "a", "x")], weights, {"q": 3})
    assert counts["a"] / 4000 == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 4000))


def test_draw_obeys_quota_topics_and_repetitions():
    candidates = [candidate("q", "a", text="same") for _ in range(5)]
    candidates += [candidate("q", "b", topic="one") for _ in range(5)]
    candidates += [candidate("other", "c")]
    rng = random.Random(1)
    for _ in range(50):
        assert Counter(c.answer for c, _ in draw(candidates, {"q": 4}, {}, rng)) == {"a": 1, "b": 1}
        assert len(draw(candidates, {"q": 1, "other": 1}, {}, rng)) == 2


def test_fit_flattens_each_cue_and_bans_telling_ones():
    """Chairs are nearly always there, pianos hardly ever, and elephants never."""
    rng = random.Random(0)
    rooms = []
    for _ in range(600):
        chair, piano = rng.random() < 0.85, rng.random() < 0.15
        rooms.append(
            [
                candidate("is", "yes" if chair else "no", "chair"),
                candidate("is", "yes" if piano else "no", "piano"),
                candidate("is", "no", "elephant"),
            ]
        )
    weights = fit(rooms, {"is": 1}, seed=0)
    assert weights["is"]["elephant"] == {}
    seen = Counter((c.cues[0], c.answer) for room in rooms for c, _ in draw(room, {"is": 1}, weights, rng))
    for cue in ("chair", "piano"):
        yes, no = seen[cue, "yes"], seen[cue, "no"]
        assert yes + no > 80
        assert abs(yes - no) < 0.25 * (yes + no)
    assert not seen["elephant", "no"]
    assert weights == fit(rooms, {"is": 1}, seed=0)


def test_fit_does_not_starve_for_the_sake_of_a_rare_answer():
    """One room in a hundred counts to nine; the other answers still share the places evenly."""
    rng = random.Random(3)
    rooms = []
    for n in range(500):
        rooms.append([candidate("n", "9" if n % 100 == 0 else rng.choice("0012"), "x") for _ in range(6)])
    weights = fit(rooms, {"n": 2}, seed=0)
    seen = Counter(c.answer for room in rooms for c, _ in draw(room, {"n": 2}, weights, rng))
    assert sum(seen.values()) > 900
    assert min(seen[a] for a in "012") > 0.8 * max(seen[a] for a in "012")


def test_fit_refuses_no_rooms():
    with pytest.raises(SceneError, match="on no rooms"):
        fit([], {"q": 1}, seed=0)


def test_written_weights_are_the_same_bytes(tmp_path):
    weights = {"room": {"q": {"b": {"y": 1.0, "x": 1 / 3}, "a": {}}}, "view": {}}
    write_weights(weights, tmp_path / "one")
    write_weights({"view": {}, "room": {"q": {"a": {}, "b": {"x": 1 / 3, "y": 1.0}}}}, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert set(shipped_weights("room")) >= {"direction", "count", "existence", "multi"}
    assert shipped_weights("view")


# The blind reader. Small pictures make the rooms cheap; the pixel thresholds shrink with the area.
ROOM = RoomConfig(width=48, height=48, min_visible_pixels=3)
WORDS = LanguageConfig(margins=Margins(clear_pixels=6), captions=0)
CHOICES = ("larger", "closer", "situated_which")
LIMITS = {
    "existence": 0.58,
    "situated_is": 0.58,
    "direction": 0.34,
    "count": 0.34,
    "situated_count": 0.42,
    "colour": 0.22,
    "situated_colour": 0.22,
    "pattern": 0.38,
    "nearest": 0.16,
    "situated_what": 0.16,
    "relation": 0.46,
    "multi": 0.45,
    "larger": 0.62,
    "closer": 0.60,
    "situated_which": 0.60,
}
Example = tuple[str, list[str], str]


def examples(split: str, rooms: int, repeats: int) -> list[Example]:
    """(type, words, answer) of the questions about some rooms, each asked about several times."""
    found = []
    for seed in split_seeds(split, rooms, offset=70_000):
        scene = make_room(seed, ROOM)
        for again in range(repeats):
            found += [example(record) for record in annotate(scene, again, WORDS)]
    return [one for one in found if one is not None]


def example(record: Annotation) -> Example | None:
    words = re.findall(r"[a-z]+", f"{record.situation} {record.text}")
    if record.task == "multi3drefer":
        return "multi", words, record.type[:2]
    return None if record.task == "scanrefer" else (record.type, words, record.answers[0])


def asked(words: list[str]) -> tuple[str, ...]:
    """The last two categories that the words name."""
    nouns = [w for w in words if w in CATEGORIES or w.removesuffix("s") in CATEGORIES or w in ("trash", "boxes")]
    return tuple(nouns[-2:])


def features(words: list[str]) -> set[str]:
    return set(words) | {f"{a} {b}" for a, b in itertools.pairwise(words)}


def majority(train: list[Example], test: list[Example]) -> float:
    """By type alone."""
    best = Counter(answer for _, _, answer in train).most_common(1)[0][0]
    return sum(answer == best for _, _, answer in test) / len(test)


def by_category(train: list[Example], test: list[Example]) -> float:
    """By the categories asked about, backing off to the last one, then to the type."""
    tables: dict[tuple[str, ...], Counter] = defaultdict(Counter)
    for _, words, answer in train:
        nouns = asked(words)
        for key in (nouns, nouns[-1:], ()):
            tables[key][answer] += 1
    right = 0
    for _, words, answer in test:
        nouns = asked(words)
        key = next(k for k in (nouns, nouns[-1:], ()) if k == () or sum(tables[k].values()) >= 8)
        right += tables[key].most_common(1)[0][0] == answer
    return right / len(test)


def naive_bayes(train: list[Example], test: list[Example]) -> float:
    """By all words and word pairs."""
    answers = Counter(answer for _, _, answer in train)
    words_of: dict[str, Counter] = defaultdict(Counter)
    for _, words, answer in train:
        words_of[answer].update(features(words))
    known = [a for a, n in answers.items() if n >= 0.04 * len(train)] or list(answers)  # rare ones mislead it

    def score(answer: str, seen: set[str]) -> float:
        n, table = answers[answer], words_of[answer]
        return math.log(n) + sum(math.log((table[w] + 1) / (n + 2)) for w in seen)

    right = sum(max(known, key=lambda a: score(a, features(words))) == answer for _, words, answer in test)
    return right / len(test)


def by_winner(train: list[Example], test: list[Example]) -> float:
    """Of two things, the one whose category was more often the answer where it was an option."""
    won: Counter = Counter()
    met: Counter = Counter()

    def options(words: list[str], answer: str) -> tuple[str, str] | None:
        text = " ".join(words)
        nouns = re.findall("|".join(sorted(CATEGORIES, key=len, reverse=True)), text)
        if " to the " in text and "closer to me" not in text and "closest" not in text:
            nouns = nouns[1:] if text.startswith("which") else nouns[:-1]
        best = next((c for c in CATEGORIES if answer == c or answer.endswith(" " + c)), "")
        pair = tuple(nouns[-2:])
        return None if len(set(pair)) < 2 or best not in pair else pair

    for _, words, answer in train:
        if pair := options(words, answer):
            met.update(pair)
            won.update(c for c in pair if answer.endswith(c))
    guesses = []
    for _, words, answer in test:
        if pair := options(words, answer):
            guesses.append(answer.endswith(max(pair, key=lambda c: (won[c] + 1) / (met[c] + 2))))
    return sum(guesses) / len(guesses)


@pytest.fixture(scope="module")
def train() -> list[Example]:
    return examples("train", 70, 3)


@pytest.fixture(scope="module")
def held_out() -> list[Example]:
    return examples("val", 45, 3)


def scores(train: list[Example], held_out: list[Example], kind: str) -> dict[str, float]:
    """Accuracy of every blind reader on one type of question."""
    mine, theirs = ([e for e in part if e[0] == kind] for part in (train, held_out))
    assert len(theirs) > 60
    readers = (by_winner,) if kind in CHOICES else (majority, by_category, naive_bayes)
    return {reader.__name__: round(reader(mine, theirs), 3) for reader in readers}


@pytest.mark.parametrize("kind", sorted(LIMITS))
def test_a_blind_reader_gains_little(train, held_out, kind):
    found = scores(train, held_out, kind)
    assert max(found.values()) < LIMITS[kind], found


@pytest.mark.slow
def test_a_blind_reader_of_many_rooms_gains_little():
    """The same with ten times the rooms, where chance blurs little; the limits are tighter."""
    train, held_out = examples("train", 900, 1), examples("val", 500, 1)
    for kind, limit in LIMITS.items():
        found = scores(train, held_out, kind)
        assert max(found.values()) < limit - 0.03, (kind, found)


def test_yes_and_no_are_even_within_each_category(train, held_out):
    """Not only on the whole: no category is asked about mostly with one answer."""
    table: dict[str, Counter] = defaultdict(Counter)
    for kind, words, answer in train + held_out:
        if kind in ("existence", "situated_is") and (nouns := asked(words)):
            table[nouns[-1]][answer] += 1
    shares = {noun: c["yes"] / sum(c.values()) for noun, c in table.items() if sum(c.values()) >= 40}
    assert len(shares) > 12
    assert all(0.28 < share < 0.72 for share in shares.values()), shares
