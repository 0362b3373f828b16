"""What can be said about a single view: words for a base model to learn to see with, before any 3D."""

import dataclasses
import random
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt16

from stereopsis.scenes.rooms.catalogue import CATEGORIES
from stereopsis.scenes.rooms.language.balance import Candidate, Draft, draw, shipped_weights
from stereopsis.scenes.rooms.language.config import ViewConfig
from stereopsis.scenes.rooms.language.facts import bits
from stereopsis.scenes.rooms.language.vocabulary import listed, plural, with_article
from stereopsis.scenes.rooms.paint import COLOURS, MATERIALS
from stereopsis.scenes.scene import Scene, SceneObject

# As many ways to ask as the benchmarks of whole rooms have, so that their words are no news to a base model.
_EXIST = (
    "is there {thing} in this picture?",
    "can you see {thing}?",
    "is there {thing} in the room?",
    "does the room have {thing}?",
)
_COLOUR = ("what colour is the {thing}?", "what is the colour of the {thing}?")
_PATTERN = (
    "is the {thing} plain, striped, checkered or wooden?",
    "what does the {thing} look like: plain, striped, checkered or wooden?",
)
_SIDE = ("which is further left, {x} or {y}?", "which is further right, {x} or {y}?")
_COUNT = (
    "how many {things} can you see?",
    "how many {things} are in the room?",
    "how many {things} are there?",
)
_ON = ("what is on the {thing}?", "what is on top of the {thing}?")
_UNDER = ("what is the {thing} on?", "what is the {thing} standing on?")
_BESIDE = ("what is left of {x}?", "what is right of {x}?")
_CAPTION = ("describe this picture.", "what can you see, from left to right?")


class ViewAnnotation(NamedTuple):
    """A question about one view, its answer, and the kind of question."""

    question: str
    answer: str
    type: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _View:
    """What one view shows: masks over `things`, bit i = thing i, things from left to right."""

    things: tuple[SceneObject, ...]
    pixels: tuple[int, ...]
    centre: tuple[float, ...]
    by_category: dict[str, int]
    clear: int
    sideways: float

    def only(self, mask: int) -> int | None:
        return mask.bit_length() - 1 if mask and not mask & (mask - 1) else None

    def name(self, i: int) -> str | None:
        """As "chair", or "red chair" where several are visible; None where that is still ambiguous."""
        thing = self.things[i]
        same = self.by_category[thing.label]
        if same == 1 << i:
            return thing.label
        colour = thing.attributes.get("colour")
        alike = [j for j in bits(same) if self.things[j].attributes.get("colour") == colour]
        return f"{colour} {thing.label}" if colour and alike == [i] else None


def view_annotations(
    scene: Scene,
    instances: UInt16[np.ndarray, "height width"],
    frame_index: int,
    seed: int,
    config: ViewConfig = ViewConfig(),  # noqa: B008
) -> list[ViewAnnotation]:
    """Say true things about one view, from its instance map and the objects' attributes alone.

    Left and right are the picture's. An object counts as visible where a single pixel shows it, and is spoken
    of only where `config.clear_pixels` do; what would depend on objects between the two is not asked.

    Args:
        scene: its objects' labels and attributes.
        instances: object id per pixel; 0 and ids that the scene does not list are background.
        frame_index: which view it is; only mixed into the seed.
        seed: the same arguments give the same records.
        config: how much is said.
    """
    rng = random.Random(f"view {seed} {frame_index}")
    candidates = view_candidates(scene, instances, rng, config)
    drawn = draw(candidates, config.quota, shipped_weights("view"), rng)
    return [ViewAnnotation(draft.text, draft.answers[0], candidate.type) for candidate, draft in drawn]


def view_candidates(
    scene: Scene, instances: UInt16[np.ndarray, "height width"], rng: random.Random, config: ViewConfig
) -> list[Candidate]:
    """Everything that could be asked about one view."""
    view = _look(scene, instances, config)
    candidates = [
        *_existence(view, rng),
        *_attributes(view),
        *_sides(view, rng),
        *_counts(view),
        *_supports(view),
        *_neighbours(view),
    ]
    if view.clear:
        candidates.append(Candidate("caption", "", (), partial(_caption, view, config.caption_objects)))
    return candidates


def _look(scene: Scene, instances: np.ndarray, config: ViewConfig) -> _View:
    flat = instances.ravel()
    columns = np.broadcast_to(np.arange(instances.shape[1]), instances.shape).ravel()
    counts = np.bincount(flat)
    sums = np.bincount(flat, weights=columns)
    seen = []
    for thing in scene.objects:
        if 0 < thing.id < len(counts) and counts[thing.id]:
            seen.append((float(sums[thing.id] / counts[thing.id]), thing.id, int(counts[thing.id]), thing))
    seen.sort(key=lambda entry: entry[:2])
    by_category: dict[str, int] = {}
    clear = 0
    for i, (_, _, pixels, thing) in enumerate(seen):
        by_category[thing.label] = by_category.get(thing.label, 0) | 1 << i
        clear |= (pixels >= config.clear_pixels) << i
    return _View(
        things=tuple(entry[3] for entry in seen),
        pixels=tuple(entry[2] for entry in seen),
        centre=tuple(entry[0] for entry in seen),
        by_category=by_category,
        clear=clear,
        sideways=config.sideways * instances.shape[1],
    )


def _said(text: str, answer: str, rng: random.Random) -> Draft:
    return Draft(text, (answer,))


def _asked(templates: tuple[str, ...], answer: str, words: dict[str, str], rng: random.Random) -> Draft:
    return Draft(rng.choice(templates).format(**words), (answer,))


def _existence(view: _View, rng: random.Random) -> Iterator[Candidate]:
    for category in CATEGORIES:
        mask = view.by_category.get(category, 0)
        if mask and not mask & view.clear:
            continue
        answer = "yes" if mask else "no"
        draft = partial(_asked, _EXIST, answer, {"thing": with_article(category)})
        yield Candidate("exist", answer, (f"any {category}",), draft)
        if not mask or mask & ~view.clear:
            continue
        for attribute, words in (("colour", COLOURS), ("material", MATERIALS)):
            there = [str(view.things[i].attributes.get(attribute)) for i in bits(mask)]
            missing = [word for word in words if word not in there]
            for answer, options in (("yes", there), ("no", missing)):
                if options:
                    word = rng.choice(options)
                    draft = partial(_asked, _EXIST, answer, {"thing": with_article(f"{word} {category}")})
                    yield Candidate("exist", answer, (f"with {category}", f"about {word}"), draft, category)


def _attributes(view: _View) -> Iterator[Candidate]:
    """Colour and pattern of what its category, or its category with the other attribute, tells apart."""
    asked = (("colour", "colour", "material", _COLOUR), ("pattern", "material", "colour", _PATTERN))
    for category, mask in view.by_category.items():
        for i in bits(mask & view.clear):
            for kind, attribute, other, templates in asked:
                word, helping = (view.things[i].attributes.get(name) for name in (attribute, other))
                alike = [j for j in bits(mask) if view.things[j].attributes.get(other) == helping]
                if word is None or (mask != 1 << i and (helping is None or alike != [i])):
                    continue
                thing = category if mask == 1 << i else f"{helping} {category}"
                draft = partial(_asked, templates, word, {"thing": thing})
                yield Candidate(kind, word, (f"about {category}",), draft)


def _sides(view: _View, rng: random.Random) -> Iterator[Candidate]:
    clear = list(bits(view.clear))
    for i, j in zip(clear, clear[1:] + clear[:1], strict=False):
        left, right = min(i, j), max(i, j)
        x, y = view.name(left), view.name(right)
        if x is None or y is None or view.centre[right] - view.centre[left] < view.sideways:
            continue
        template = rng.choice(_SIDE)
        best = x if "left" in template else y
        answer = "first" if best == min(x, y) else "second"
        shown = [f"the {x}", f"the {y}"]
        rng.shuffle(shown)
        pair = sorted((view.things[left].label, view.things[right].label))
        draft = partial(_said, template.format(x=shown[0], y=shown[1]), best)
        yield Candidate("left_right", answer, (f"pair {pair[0]} {pair[1]}",), draft)


def _counts(view: _View) -> Iterator[Candidate]:
    for category in CATEGORIES:
        mask = view.by_category.get(category, 0)
        if not mask & ~view.clear:
            answer = str(mask.bit_count())
            draft = partial(_asked, _COUNT, answer, {"things": plural(category)})
            yield Candidate("count", answer, (f"about {category}",), draft)
    if view.clear.bit_count() != len(view.things):
        return
    for attribute, words in (("colour", COLOURS), ("material", MATERIALS)):
        for word in words:
            answer = str(sum(thing.attributes.get(attribute) == word for thing in view.things))
            draft = partial(_asked, _COUNT, answer, {"things": plural(f"{word} object")})
            yield Candidate("count", answer, (f"about {word}",), draft)


def _supports(view: _View) -> Iterator[Candidate]:
    index_of = {thing.id: i for i, thing in enumerate(view.things)}
    above: dict[int, int] = {}
    for i, thing in enumerate(view.things):
        support = index_of.get(thing.attributes.get("supported_by") or 0)
        if support is not None:
            above[support] = above.get(support, 0) | 1 << i
    for below, mask in above.items():
        only, name = view.only(mask), view.name(below)
        if only is not None and name is not None and (view.clear >> only & view.clear >> below & 1):
            label = view.things[only].label
            draft = partial(_asked, _ON, label, {"thing": name})
            yield Candidate("on", label, (f"on {view.things[below].label}",), draft)
        for i in bits(mask):
            name = view.name(i)
            if name is not None and (view.clear >> i & view.clear >> below & 1):
                label = view.things[below].label
                draft = partial(_asked, _UNDER, label, {"thing": name})
                yield Candidate("under", label, (f"under {view.things[i].label}",), draft)


def _neighbours(view: _View) -> Iterator[Candidate]:
    """The next visible thing to the left or right, by the middles of what is visible of them."""
    for i in bits(view.clear):
        name = view.name(i)
        if name is None:
            continue
        for template, side, then in ((_BESIDE[0], i - 1, i - 2), (_BESIDE[1], i + 1, i + 2)):
            if not 0 <= side < len(view.things) or not view.clear >> side & 1:
                continue
            if abs(view.centre[side] - view.centre[i]) < view.sideways:
                continue
            if 0 <= then < len(view.things) and abs(view.centre[then] - view.centre[side]) < view.sideways:
                continue
            label = view.things[side].label
            draft = partial(_said, template.format(x=f"the {name}"), label)
            yield Candidate("beside", label, (f"about {view.things[i].label}",), draft)


def _caption(view: _View, most: int, rng: random.Random) -> Draft:
    """The clearest objects from left to right: "a red chair, a blue table and a lamp."."""
    largest = sorted(bits(view.clear), key=lambda i: -view.pixels[i])[:most]
    phrases = []
    for i in sorted(largest):
        colour = view.things[i].attributes.get("colour")
        phrases.append(with_article(f"{colour} {view.things[i].label}" if colour else view.things[i].label))
    return Draft(rng.choice(_CAPTION), (f"{listed(phrases)}.",))
