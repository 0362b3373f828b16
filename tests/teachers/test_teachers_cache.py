"""The cache of teachers' answers: right for the frames it was made for, refused with reasons for all others."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.errors import CacheError
from stereopsis.teachers.cache import Answers, CacheIdentity, TeacherCache
from stereopsis.teachers.glimpse import Glimpse

NAMES = ("a", "b", "c", "d")
SETTINGS = {"image_size": 32, "fit": "crop", "rows": 2, "cols": 3}


def glimpse(names=NAMES, *, seed: int = 0, **changes) -> Glimpse:
    """Every name has its own picture, camera and depth."""
    parts: dict[str, list[torch.Tensor]] = {"images": [], "cameras": [], "points": []}
    for name in names:
        generator = torch.Generator().manual_seed(seed + ord(name))
        parts["images"].append(torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8))
        parts["cameras"].append(torch.rand(4, 4, generator=generator))
        parts["points"].append(torch.rand(2, 3, 3, generator=generator))
    plain = {key: torch.stack(value) for key, value in parts.items()}
    plain["intrinsics"] = torch.tensor([[30.0, 0, 16], [0, 30, 16], [0, 0, 1]]).expand(len(names), 3, 3)
    plain["points_valid"] = torch.ones(len(names), 2, 3, dtype=torch.bool)
    return Glimpse.of(names, **{**plain, **changes})


def answers(names=NAMES) -> Answers:
    """Each frame's answer is its name."""
    features = torch.tensor([float(ord(name)) for name in names])[:, None, None, None].expand(-1, 2, 3, 4)
    return Answers(views={"view_features": features, "view_features_valid": features[..., 0] > 98})


def cache(root, **changes) -> TeacherCache:
    plain = {"kind": "features", "teacher": "geo", "fingerprint": "f" * 64, "per_view": True, "settings": SETTINGS}
    return TeacherCache(root=root, identity=CacheIdentity(**{**plain, **changes}))


def read_names(stored) -> str:
    return "".join(chr(int(v)) for v in stored.read().views["view_features"][:, 0, 0, 0])


@pytest.fixture
def filled(tmp_path) -> TeacherCache:
    made = cache(tmp_path)
    made.write("room 1", glimpse(), answers())
    return made


def test_answers_come_back_in_half_precision(filled):
    found = filled.require("room 1", glimpse()).read().views
    assert found["view_features"].dtype == torch.float16
    assert torch.equal(found["view_features"].float(), answers().views["view_features"])
    assert torch.equal(found["view_features_valid"], answers().views["view_features_valid"])
    assert json.loads((filled.folder / "cache.json").read_text())["settings"] == SETTINGS
    assert [path.name for path in filled.folder.iterdir() if path.suffix == ".safetensors"] == ["room-1.safetensors"]


@settings(max_examples=20, deadline=None)
@given(st.permutations(NAMES), st.integers(1, 4))
def test_answers_follow_names_not_places(tmp_path_factory, order, number):
    made = cache(tmp_path_factory.mktemp("cache"))
    made.write("room", glimpse(), answers())
    wanted = tuple(order[:number])
    assert read_names(made.require("room", glimpse(wanted))) == "".join(wanted)


def test_one_views_teacher_gets_more_frames_beside_the_old_ones(filled):
    assert filled.find("room 1", glimpse(("e", "b"))) is None
    assert read_names(filled.write("room 1", glimpse(("e", "b")), answers(("e", "b")))) == "eb"
    assert read_names(filled.require("room 1", glimpse(("d", "e", "a", "b")))) == "deab"
    replaced = filled.write("room 1", glimpse(("b",)), answers(("b",)), keep=False)
    assert read_names(replaced) == "b"
    assert filled.find("room 1", glimpse()) is None


def test_a_joint_teachers_answers_serve_the_same_set_of_frames_only(tmp_path):
    joint = cache(tmp_path, per_view=False)
    joint.write("room", glimpse(), answers())
    assert read_names(joint.require("room", glimpse(("c", "a", "d", "b")))) == "cadb"
    for names in (("a", "b"), (*NAMES, "e")):
        with pytest.raises(CacheError, match=r"has answers to 4 frames.*looks at all views together.*--overwrite"):
            joint.find("room", glimpse(names))


def test_missing_frames_are_refused_with_what_there_is_and_the_command(filled):
    with pytest.raises(CacheError) as caught:
        filled.require("room 1", glimpse(("a", "x", "y")))
    message = str(caught.value)
    assert "has 4 frames ('a', 'b', 'c', ...), but not 'x', 'y'" in message
    assert "stereopsis cache RECIPE" in message


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"settings": {**SETTINGS, "rows": 7}},
            "wants 4 frames from 'geo' (ffffffffffff) with image_size 32, fit crop",
        ),
        ({"fingerprint": "0" * 64}, "the cache has 'geo' (ffffffffffff)"),
        ({"teacher": "other"}, "wants 4 frames from 'other'"),
        ({"settings": {**SETTINGS, "fit": "squash"}}, "fit squash"),
        ({"kind": "latents"}, "the cache has no latents at all"),
    ],
)
def test_another_teacher_grid_or_crop_finds_nothing_and_says_what_there_is(filled, changes, told):
    other = cache(filled.root, **changes)
    assert other.find("room 1", glimpse()) is None
    with pytest.raises(CacheError) as caught:
        other.require("room 1", glimpse())
    assert told in str(caught.value)


def test_shuffled_frames_are_refused_and_the_twin_is_named(filled):
    swapped = glimpse(("b", "a", "c", "d"))
    renamed = dataclasses.replace(swapped, names=NAMES)  # the files of 'a' and 'b' have changed places
    with pytest.raises(CacheError, match=r"frame 'a' shows another picture.*looks like the frame.*cached as 'b'"):
        filled.find("room 1", renamed)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda g: {"cameras": g.cameras + torch.eye(4) * 0.01}, "stands at another pose"),
        (lambda g: {"intrinsics": g.intrinsics * 1.1}, "other intrinsics"),
        (lambda g: {"points": g.points + 0.1}, "another depth"),
        (lambda g: {"points": g.points - torch.tensor([0, 0, 0, 0.2])}, "depth in other places"),
        (lambda g: {"thumbs": 255 - g.thumbs}, "another picture"),
    ],
)
def test_frames_that_changed_under_their_names_are_refused(filled, change, told):
    seen = dataclasses.replace(glimpse(), **change(glimpse()))
    with pytest.raises(CacheError, match=told):
        filled.find("room 1", seen)
    latents = cache(filled.root, kind="latents")
    latents.write("room 1", glimpse(), answers())
    if "picture" not in told:  # who sees pictures alone does not care where the camera stands
        assert latents.find("room 1", seen) is not None


def test_what_a_jpeg_decoder_changes_is_no_change(filled):
    noisy = dataclasses.replace(glimpse(), thumbs=(glimpse().thumbs.int() + 1).clamp(max=255).to(torch.uint8))
    assert filled.find("room 1", noisy) is not None


def test_a_shifted_crop_of_the_same_picture_is_another_picture():
    generator = torch.Generator().manual_seed(3)
    wide = torch.rand(1, 3, 8, 10, generator=generator)
    wide = (torch.nn.functional.interpolate(wide, (128, 160), mode="bilinear") * 255).to(torch.uint8)
    crops = [glimpse(("a",), images=wide[..., left : left + 128]) for left in (0, 8, 16)]
    assert crops[1].difference(crops[1], geometry=True) is None
    for other in (crops[0], crops[2]):
        assert "another picture (or another crop of it)" in str(crops[1].difference(other, geometry=True))


def test_the_view_from_above_must_be_the_same(tmp_path):
    latents = cache(tmp_path, kind="latents")
    picture = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    made = Answers(views=answers().views, scene={"birdseye_latents": torch.ones(2, 2, 4)})
    latents.write("room", glimpse(), made, above=picture)
    assert latents.require("room", glimpse(), picture).read().scene["birdseye_latents"].sum() == 16
    for above in (None, 255 - picture):
        with pytest.raises(CacheError, match="views from above"):
            latents.find("room", glimpse(), above)


def test_scenes_whose_names_fall_together_are_told_apart(filled):
    with pytest.raises(CacheError, match="is of scene 'room 1', not of 'room/1'"):
        filled.find("room/1", glimpse())


def test_a_damaged_file_is_named(filled):
    path = filled.path("room 1")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CacheError, match=r"room-1\.safetensors: is damaged or was cut short"):
        filled.find("room 1", glimpse())
