"""Splits never share a seed; annotations are deterministic, small in words, and portable."""

import itertools
import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stereopsis.annotations import Annotation
from stereopsis.errors import SceneError
from stereopsis.scenes.rooms import make_room
from stereopsis.scenes.rooms.language import (
    SPLITS,
    LanguageConfig,
    annotate,
    corpus,
    lines,
    split_of,
    split_seeds,
)


def test_splits_are_disjoint():
    for one, other in itertools.combinations(SPLITS.values(), 2):
        assert one.stop <= other.start or other.stop <= one.start
    assert SPLITS["train"].start == 0
    assert SPLITS["val"].start == 10_000_000
    assert SPLITS["test"].start == 20_000_000


@given(st.sampled_from(sorted(SPLITS)), st.integers(0, 10_000_000), st.integers(0, 10_000_000))
def test_split_seeds_stay_inside_their_split(split, count, offset):
    if count + offset > len(SPLITS[split]):
        with pytest.raises(SceneError, match="would run into another split"):
            split_seeds(split, count, offset)
    else:
        seeds = split_seeds(split, count, offset)
        assert len(seeds) == count
        assert all(split_of(seed) == split for seed in (*seeds[:1], *seeds[-1:]))
        assert not count or seeds[0] == SPLITS[split].start + offset


def test_split_errors_say_what_to_do():
    with pytest.raises(SceneError, match=r"unknown split 'tset' \(did you mean 'test'\?\)"):
        split_seeds("tset", 3)
    with pytest.raises(SceneError, match="must not be negative"):
        split_seeds("test", -1)
    with pytest.raises(SceneError, match="belongs to no split"):
        split_of(10**9)


def test_same_seed_same_words_other_seed_other_words():
    scene = make_room(5)
    assert annotate(scene, 1) == annotate(make_room(5), 1)
    assert annotate(scene, 1) != annotate(scene, 2)


def test_frames_are_not_opened():
    """Words depend on objects alone."""
    scene = make_room(5)
    assert annotate(scene.replace(frames=()), 1) == annotate(scene, 1)


@pytest.fixture(scope="module")
def said() -> list[Annotation]:
    return [record for seed in range(40) for record in annotate(make_room(seed), seed)]


def test_records_have_unique_ids_and_survive_json(said):
    assert len({record.id for record in said}) == len(said)
    for record in said:
        assert Annotation.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_sentences_are_short_and_lower_case(said):
    plain = [
        r for r in said if r.task != "vsibench"
    ]  # whose questions explain themselves, and whose letters are capital
    lengths = sorted(len(text.split()) for r in plain for text in (r.text, r.situation))
    assert lengths[-1] <= 19
    assert lengths[int(0.98 * len(lengths))] <= 16
    assert all(line == line.lower() for record in plain for line in lines(record))
    assert all(r.text == r.text.lower() and len(r.text.split()) <= 60 for r in said)


def test_the_vocabulary_is_small(said):
    words = {word for record in said for line in lines(record) for word in re.findall(r"[a-z]+", line)}
    assert len(words) < 220


def test_each_form_has_what_its_benchmark_needs(said):
    for record in said:
        situated = record.task == "sqa3d"
        assert (record.position is not None) == (record.yaw is not None) == bool(record.situation) == situated
        assert bool(record.text) == (record.task != "scan2cap")
        assert bool(record.answers) == (record.task not in ("scanrefer", "multi3drefer"))
        if record.task in ("scanrefer", "scan2cap"):
            assert len(record.object_ids) == 1
    types = {record.type for record in said if record.task == "multi3drefer"}
    assert types == {"zt_w_d", "zt_wo_d", "st_w_d", "st_wo_d", "mt"}
    assert {record.type for record in said if record.task == "scanrefer"} == {"unique", "multiple"}


def test_quota_and_captions_are_obeyed():
    scene = make_room(8)
    config = LanguageConfig(quota={"count": 2, "multi": 3}, captions=4)
    counted = Counter(record.task for record in annotate(scene, 0, config))
    assert counted["scan2cap"] == 4
    assert counted["multi3drefer"] <= 3
    assert counted["scanqa"] <= 2
    assert not counted["sqa3d"]
    assert not counted["scanrefer"]


def test_corpus_holds_every_line():
    text = list(corpus(range(2)))
    assert all(isinstance(line, str) and line for line in text)
    for record in annotate(make_room(1), 1):
        assert set(lines(record)) <= set(text)
    assert any(line.endswith("in this picture?") for line in text)
