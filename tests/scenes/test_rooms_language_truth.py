"""Every sentence is read back by a slow, separate interpreter and compared with the boxes it speaks of."""

import itertools
import math
import random
import re

import numpy as np
import pytest

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import trained_benchmarks
from stereopsis.scenes.rooms import CATEGORIES, COLOURS, MATERIALS, make_room, render_room
from stereopsis.scenes.rooms.language import LanguageConfig, annotate
from stereopsis.scenes.scene import Scene, SceneObject

NOUNS = {name: name for name in (*CATEGORIES, "object")}
NOUNS |= {name + ("es" if name.endswith("x") else "s"): name for name in (*CATEGORIES, "object")}
NOUNS["bookshelves"] = "bookshelf"
PHRASE = re.compile(
    r"(?:(?P<extreme>largest|smallest) )?(?:(?P<size>small|large) )?"
    rf"(?:(?P<colour>{'|'.join(COLOURS)}) )?(?:(?P<material>{'|'.join(MATERIALS)}) )?"
    rf"(?P<noun>{'|'.join(sorted(NOUNS, key=len, reverse=True))})"
    r"(?: (?P<relation>next to|on|closest to|farthest from) the (?P<anchor>.+)| with an? (?P<held>.+) on it)?"
)
WHERE = {
    "in front of me": "front", "ahead of me": "front", "to my left": "left", "on my left": "left",
    "behind me": "behind", "at my back": "behind", "to my right": "right", "on my right": "right",
}  # fmt: skip
SIDES = "|".join(WHERE)


def furnished(seed: int, hidden: bool = False) -> Scene:
    """A hand-made room: things on a loose grid, some on top of others, doors and windows in the walls."""
    rng = random.Random(seed)
    things: list[SceneObject] = []

    def add(label: str, centre: tuple[float, float, float], size: tuple[float, float, float], **more) -> int:
        number = 10 + 3 * len(things)
        facts = {
            "category": label,
            "colour": rng.choice(COLOURS),
            "material": rng.choice(MATERIALS),
            "size": rng.choice(("small", "large")),
            "supported_by": None,
            "yaw": rng.choice((0.0, math.pi / 2, None)),
        }
        pixels = more.pop("pixels", (99, *(rng.choice((0, 40, 400)) for _ in range(3))))
        box = np.array([*centre, *size])
        things.append(SceneObject(id=number, label=label, box=box, attributes=facts | more, visible_pixels=pixels))
        return number

    pool = rng.sample(("chair", "table", "cabinet", "sofa", "stool", "bed", "box", "plant", "sink"), 4)
    for column, row in itertools.product(range(4), range(4)):
        if rng.random() < 0.45:
            continue
        label = rng.choice(pool)
        dx, dy, dz = (rng.uniform(0.3, 0.9) for _ in range(3))
        x, y = 0.6 + 1.3 * column + rng.uniform(-0.1, 0.1), 0.6 + 1.3 * row + rng.uniform(-0.1, 0.1)
        below = add(label, (x, y, dz / 2), (dx, dy, dz))
        if label in ("table", "cabinet") and rng.random() < 0.7:
            small = rng.choice(("lamp", "vase", "box"))
            add(small, (x, y, dz + 0.15), (0.2, 0.25, 0.3), supported_by=below)
    add("door", (0.03, rng.uniform(1, 4), 1.0), (0.06, 0.9, 2.0))
    add("window", (rng.uniform(1, 4), 5.2, 1.5), (1.2, 0.06, 1.0))
    if hidden:
        add("chair", (0.9, 2.6, 0.4), (0.5, 0.5, 0.8), pixels=(0, 0, 0, 0))
        add("vase", (2.6, 0.2, 0.4), (0.3, 0.3, 0.8), pixels=(0, 5, 0, 0))
    return Scene(id=f"hand-{seed}", frames=(), objects=tuple(things))


class Reader:
    """Understands the sentences by looking everything up anew, without masks or margins."""

    def __init__(self, scene: Scene) -> None:
        self.things = [o for o in scene.objects if max(o.visible_pixels) > 0]

    @staticmethod
    def gap(a: SceneObject, b: SceneObject) -> float:
        apart = [max(abs(a.box[k] - b.box[k]) - (a.box[3 + k] + b.box[3 + k]) / 2, 0.0) for k in range(3)]
        return math.sqrt(sum(d * d for d in apart))

    @staticmethod
    def far(a: SceneObject, b: SceneObject) -> float:
        return math.dist(a.box[:3], b.box[:3])

    @staticmethod
    def volume(a: SceneObject) -> float:
        return float(a.box[3] * a.box[4] * a.box[5])

    def all(self, phrase: str) -> list[SceneObject]:
        """The objects that a phrase without article fits."""
        match = PHRASE.fullmatch(phrase)
        assert match, f"cannot read {phrase!r}"
        part = match.groupdict()
        noun = NOUNS[part["noun"]]
        found = [o for o in self.things if noun in ("object", o.label)]
        for kind in ("size", "colour", "material"):
            found = [o for o in found if part[kind] in (None, o.attributes[kind])]
        if part["extreme"]:
            found.sort(key=self.volume, reverse=part["extreme"] == "largest")
            found = found[:1]
        if part["held"]:
            holders = {o.attributes["supported_by"] for o in self.things if o.label == part["held"]}
            found = [o for o in found if o.id in holders]
        if part["relation"]:
            found = self.related(found, part["relation"], self.the(part["anchor"]))
        return found

    def related(self, found: list[SceneObject], relation: str, anchor: SceneObject) -> list[SceneObject]:
        if relation == "on":
            return [o for o in found if o.attributes["supported_by"] == anchor.id]
        others = [o for o in found if o is not anchor]
        if relation == "next to":
            touching = (anchor.id, anchor.attributes["supported_by"])
            return [
                o for o in others
                if self.gap(o, anchor) < 0.65
                and o.attributes["supported_by"] != anchor.id and o.id not in touching
            ]  # fmt: skip
        order = sorted(others, key=lambda o: self.far(o, anchor), reverse=relation == "farthest from")
        return order[:1]

    def the(self, phrase: str) -> SceneObject:
        """The one object of a phrase that claims to be unique."""
        found = self.all(phrase.removeprefix("the "))
        assert len(found) == 1, f"{phrase!r} fits {len(found)} objects"
        return found[0]


def quarter(position, yaw: float, thing: SceneObject) -> str:
    """The direction whose axis is nearest to a thing's bearing."""
    angle = math.atan2(thing.box[1] - position[1], thing.box[0] - position[0]) - yaw
    axes = {"front": 0.0, "left": math.pi / 2, "behind": math.pi, "right": -math.pi / 2}
    return max(axes, key=lambda side: math.cos(angle - axes[side]))


def answer_room(reader: Reader, text: str) -> set[str]:
    """Acceptable answers to a question about the room."""
    if m := re.fullmatch(r"how many (.+?) are (?:there|in the room)\?", text):
        return {str(len(reader.all(m[1])))}
    if m := re.fullmatch(r"(?:is there an? (.+) in the room|does the room have an? (.+))\?", text):
        return {"yes" if reader.all(m[1] or m[2]) else "no"}
    if m := re.fullmatch(r"is there an? (.+?) on the (.+)\?|does the (.+) have an? (.+) on it\?", text):
        noun, below = m[1] or m[4], reader.the(m[2] or m[3])
        return {"yes" if any(o.attributes["supported_by"] == below.id for o in reader.all(noun)) else "no"}
    if m := re.fullmatch(r"what (?:colour is|is the colour of) the (.+)\?", text):
        return {reader.the(m[1]).attributes["colour"]}
    pattern = r"is the (.+) plain, striped, checkered or wooden\?|what does the (.+) look like: plain.*"
    if m := re.fullmatch(pattern, text):
        return {reader.the(m[1] or m[2]).attributes["material"]}
    if m := re.fullmatch(r"what is on (?:top of )?the (.+)\?", text):
        below = reader.the(m[1])
        above = [o for o in reader.things if o.attributes["supported_by"] == below.id]
        assert len(above) == 1
        return said(above[0])
    if m := re.fullmatch(r"what is the (.+?) (?:standing )?on\?", text):
        (below,) = [o for o in reader.things if o.id == reader.the(m[1]).attributes["supported_by"]]
        return said(below)
    if m := re.fullmatch(r"(?:what is the closest object to|which object is closest to) the (.+)\?", text):
        anchor = reader.the(m[1])
        others = [o for o in reader.things if o is not anchor]
        nearest = {min(others, key=lambda o: by(o, anchor)).id for by in (reader.gap, reader.far)}
        assert len(nearest) == 1
        return said(min(others, key=lambda o: reader.far(o, anchor)))
    if m := re.fullmatch(r"which is larger, the (.+) or the (.+)\?|is the (.+) or the (.+) bigger\?", text):
        x, y = (p for p in m.groups() if p)
        one, other = reader.the(x), reader.the(y)
        assert max(map(reader.volume, (one, other))) > 1.3 * min(map(reader.volume, (one, other)))
        return chosen({x: one, y: other}, lambda o: -reader.volume(o))
    closer = r"which is closer to the (?P<z>.+), the (?P<x>.+) or the (?P<y>.+)\?"
    m = re.fullmatch(closer, text) or re.fullmatch(r"is the (?P<x>.+) or the (?P<y>.+) closer to the (?P<z>.+)\?", text)
    assert m, f"cannot read {text!r}"
    anchor, options = reader.the(m["z"]), {m[k]: reader.the(m[k]) for k in "xy"}
    both = [chosen(options, lambda o, by=by: by(o, anchor)) for by in (reader.gap, reader.far)]
    assert both[0] == both[1]
    return both[0]


def said(thing: SceneObject) -> set[str]:
    return {thing.label, f"{thing.attributes['colour']} {thing.label}"}


def chosen(options: dict[str, SceneObject], key) -> set[str]:
    phrase = min(options, key=lambda p: key(options[p]))
    same = len({o.label for o in options.values()}) == 1
    return {phrase} if same else {phrase, options[phrase].label}


def answer_situated(reader: Reader, text: str, position, yaw: float) -> set[str]:
    """Acceptable answers to a question that an agent at this place asks."""

    def at(side: str) -> list[SceneObject]:
        return [o for o in reader.things if quarter(position, yaw, o) == WHERE[side]]

    def near(o: SceneObject) -> float:
        return math.dist(o.box[:2], position[:2])

    direction = r"(?:is|where is|in which direction is) the (.+?)(?: to my left, to my right|: left|, left).*"
    if m := re.fullmatch(direction, text):
        return {quarter(position, yaw, reader.the(m[1]))}
    if m := re.fullmatch(rf"what is the closest thing ({SIDES})\?", text) or re.fullmatch(
        rf"which object ({SIDES}) is closest to me\?", text
    ):
        return said(min(at(m[1]), key=near))
    if m := re.fullmatch(rf"how many (.+) (?:are|do i have) ({SIDES})\?", text):
        return {str(sum(o in at(m[2]) for o in reader.all(m[1])))}
    if m := re.fullmatch(rf"is there a (.+?) ({SIDES})\?", text):
        return {"yes" if any(o in at(m[2]) for o in reader.all(m[1])) else "no"}
    if m := re.fullmatch(rf"is the (.+?) ({SIDES})\?", text):
        return {"yes" if reader.the(m[1]) in at(m[2]) else "no"}
    if m := re.fullmatch(rf"what (?:colour is|is the colour of) the (.+?) ({SIDES})\?", text):
        (thing,) = [o for o in reader.all(m[1]) if o in at(m[2])]
        return {thing.attributes["colour"]}
    m = re.fullmatch(r"which is closer to me, the (.+) or the (.+)\?", text) or re.fullmatch(
        r"is the (.+) or the (.+) nearer to me\?", text
    )
    assert m, f"cannot read {text!r}"
    return chosen({m[1]: reader.the(m[1]), m[2]: reader.the(m[2])}, near)


def check_situation(reader: Reader, record: Annotation) -> None:
    """The agent stands where the words say, with room around it, and looks where they say."""
    forms = (
        r"i am standing next to the (?P<x>.+) and facing the (?P<y>.+)\.",
        r"i am next to the (?P<x>.+), facing the (?P<y>.+)\.",
        r"i stand by the (?P<x>.+) and look at the (?P<y>.+)\.",
        rf"i am facing the (?P<y>.+) and the (?P<x>.+) is right (?P<side>{SIDES})\.",
        rf"i am looking at the (?P<y>.+) with the (?P<x>.+) right (?P<side>{SIDES})\.",
    )
    m = next(m for form in forms if (m := re.fullmatch(form, record.situation)))
    x, y = reader.the(m["x"]), reader.the(m["y"])
    assert record.position is not None
    assert record.yaw is not None
    assert record.position[2] == 0.0
    spot = SceneObject(id=0, label="me", box=np.array([*record.position[:2], x.box[2], 0, 0, 0]))
    assert 0.2 < Reader.gap(spot, x) < 0.7
    towards = math.atan2(y.box[1] - record.position[1], y.box[0] - record.position[0])
    assert record.yaw == pytest.approx(towards)
    if "side" in m.groupdict() and m["side"]:
        assert quarter(record.position, record.yaw, x) == WHERE[m["side"]]
    for thing in reader.things:
        bottom, top = thing.box[2] - thing.box[5] / 2, thing.box[2] + thing.box[5] / 2
        if bottom < 1.5 and top > 0.1:
            standing = SceneObject(id=0, label="me", box=np.array([*record.position[:2], thing.box[2], 0, 0, 0]))
            assert Reader.gap(standing, thing) > 0.19


def check(scene: Scene, record: Annotation) -> None:
    reader = Reader(scene)
    assert record.scene_id == scene.id
    if record.task == "vsibench":
        return  # test_rooms_language_video.py finds these answers again
    if record.task == "scanqa":
        assert set(record.answers) <= answer_room(reader, record.text), record
    elif record.task == "sqa3d":
        check_situation(reader, record)
        x, y, _ = record.position
        for dx, dy in ((0, 0), (0.08, 0), (-0.08, 0), (0, 0.08), (0, -0.08)):
            truth = answer_situated(reader, record.text, (x + dx, y + dy, 0.0), record.yaw)
            assert set(record.answers) <= truth, record
    elif record.task == "scan2cap":
        check_caption(reader, record)
    elif record.task == "scanrefer":
        text = record.text.removeprefix("find ").removeprefix("i am looking for ").removeprefix("this is ")
        phrase = re.sub(r"\. it is ", " ", text.removesuffix("."))
        (thing,) = reader.all(re.sub(r"^(the|a|an) ", "", phrase))
        assert record.object_ids == (thing.id,), record
        alone = sum(o.label == thing.label for o in reader.things) == 1
        assert record.type == ("unique" if alone else "multiple")
    else:
        phrase = re.sub(r"^(every|find any|point at each) ", "", record.text.removesuffix("."))
        found = reader.all(phrase)
        assert set(record.object_ids) == {o.id for o in found}, record
        noun = NOUNS[PHRASE.fullmatch(phrase)["noun"]]
        distractors = any(o.label == noun and o not in found for o in reader.things)
        expected = "mt" if len(found) > 1 else ("st" if found else "zt") + ("_w_d" if distractors else "_wo_d")
        assert record.type == expected


def check_caption(reader: Reader, record: Annotation) -> None:
    """Each caption must fit its object, and its relation must hold."""
    assert 2 <= len(record.answers) <= 3
    for caption in record.answers:
        text = re.sub(r"\. it is the only .+| it is one of .+", "", caption.removesuffix("."))
        text = re.sub(r"\. it has ", " with ", text)
        text = re.sub(r" has (an? .+ on it)$", r" with \1", text)
        text = re.sub(r"^(this is an?|this|an?) ", "", text)
        text = text.replace(". it is ", " ").replace(" is ", " ")
        assert record.object_ids[0] in {o.id for o in reader.all(text.rstrip("."))}, record


@pytest.mark.parametrize("seed", range(25))
def test_hand_made_rooms_are_described_truthfully(seed):
    scene = furnished(seed)
    for record in annotate(scene, seed) + annotate(scene, seed + 1, LanguageConfig(balanced=False)):
        check(scene, record)


@pytest.mark.parametrize("seed", range(20_000_000, 20_000_012))
def test_procedural_rooms_are_described_truthfully(seed):
    scene = make_room(seed)
    records = annotate(scene, seed)
    assert 50 <= len(records) <= 95
    assert {record.task for record in records} == {*trained_benchmarks(), "vsibench"}
    for record in records:
        check(scene, record)


@pytest.mark.parametrize("seed", range(4))
def test_left_is_where_the_pictures_show_it(seed):
    """An agent in the camera's place: what it has to its left is in the left half of the picture."""
    room = render_room(seed)
    checked = 0
    for frame, instances in zip(room.scene.frames, room.instances, strict=True):
        position, forward = frame.T_world_camera[:3, 3], frame.T_world_camera[:3, 2]
        yaw = math.atan2(forward[1], forward[0])
        for thing in room.scene.objects:
            columns = np.nonzero(instances == thing.id)[1]
            if len(columns) < 20 or max(thing.box[3:5]) > 0.8:
                continue
            right = columns.mean() - instances.shape[1] / 2
            if abs(right) > 15:
                seen = "right" if right > 0 else "left"
                assert quarter(position, yaw + math.radians(-60 if seen == "left" else 60), thing) == seen
                checked += 1
    assert checked > 5


def test_the_reader_notices_a_wrong_answer():
    """The check above is only worth what it catches."""
    scene = furnished(3)
    for record in annotate(scene, 3):
        if record.task in ("scan2cap", "vsibench"):
            continue
        wrong = {
            "scanqa": {"answers": ("banana",)},
            "sqa3d": {"answers": ("banana",)},
            "scanrefer": {"object_ids": (-1,)},
            "multi3drefer": {"object_ids": (-1,)},
        }[record.task]
        changed = Annotation.from_dict(record.to_dict() | wrong)
        with pytest.raises((AssertionError, ValueError)):
            check(scene, changed)


@pytest.mark.parametrize("seed", range(12))
def test_what_no_view_sees_changes_nothing(seed):
    """Objects without pixels are never spoken of; those with five are not asked about, or counted."""
    scene = furnished(seed, hidden=True)
    unseen, glimpsed = scene.objects[-2:]
    without = scene.replace(objects=tuple(o for o in scene.objects if o is not unseen))
    records = annotate(scene, seed)
    assert records == annotate(without, seed)
    for record in records:
        assert unseen.id not in record.object_ids
        assert glimpsed.id not in record.object_ids
        assert not re.search(r"how many (vases|(\w+ )?objects)", record.text) or "vase" not in record.text
        assert record.text not in ("is there a vase in the room?", "does the room have a vase?")


def test_an_empty_room_says_only_that_nothing_is_there():
    for record in annotate(Scene(id="empty", frames=()), 0):
        assert record.answers in (("0",), ("no",), ())
        assert record.object_ids == ()
