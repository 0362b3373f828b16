"""Furnishing: nothing overlaps, supports touch, content is balanced."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.errors import SceneError
from stereopsis.scenes.rooms import COLOURS, RoomConfig, make_layout
from stereopsis.scenes.rooms.layout import MARGIN
from stereopsis.scenes.rooms.walk import make_walk

ROOMS = 250


@pytest.fixture(scope="module")
def layouts():
    return [make_layout(seed) for seed in range(ROOMS)]


def test_objects_stay_inside_the_room_and_never_overlap(layouts):
    for layout in layouts:
        for i, a in enumerate(layout.objects):
            assert (a.low >= -1e-6).all()
            assert (a.high <= np.array(layout.size) + 1e-6).all()
            for j, b in enumerate(layout.objects[:i]):
                if a.support == j or b.support == i:
                    continue
                gap = np.maximum(a.low - b.high, b.low - a.high)
                apart = gap[:2].max() >= MARGIN - 1e-5 or gap[2] >= -1e-6
                assert apart, (layout.seed, a.category.name, b.category.name, gap)


def test_supported_items_touch_a_face_below_their_whole_footprint_centre(layouts):
    supported = 0
    for layout in layouts:
        for item in layout.objects:
            if item.support is None:
                if item.category.placement != "hung":
                    assert item.low[2] == pytest.approx(0, abs=1e-6)
                continue
            supported += 1
            host = layout.objects[item.support]
            assert host.category.name in item.category.supports
            corners = host.triangles.astype(np.float64)
            flat = corners[np.ptp(corners[:, :, 2], axis=1) < 1e-6]
            level = flat[np.abs(flat[:, 0, 2] - item.low[2]) < 1e-5]
            assert any(_inside(t[:, :2], (item.low + item.high)[:2] / 2) for t in level), item.category.name
            assert (item.low[:2] >= host.low[:2] - 1e-6).all()
            assert (item.high[:2] <= host.high[:2] + 1e-6).all()
    assert supported > ROOMS


def _inside(triangle: np.ndarray, point: np.ndarray) -> bool:
    edges = np.roll(triangle, -1, axis=0) - triangle
    towards = point - triangle
    sides = edges[:, 0] * towards[:, 1] - edges[:, 1] * towards[:, 0]
    return bool((sides >= -1e-9).all() or (sides <= 1e-9).all())


def test_boxes_are_the_exact_bounds_of_the_triangles(layouts):
    for layout in layouts[:50]:
        for item in layout.objects:
            np.testing.assert_array_equal(item.low, item.triangles.min(axis=(0, 1)))
            np.testing.assert_array_equal(item.high, item.triangles.max(axis=(0, 1)))


def test_the_back_of_wall_furniture_faces_the_nearest_wall(layouts):
    fronts = {0.0: (1, 0), np.pi / 2: (0, 1), np.pi: (-1, 0), -np.pi / 2: (0, -1)}
    for layout in layouts:
        for item in layout.objects:
            if item.category.placement in ("wall", "hung"):
                front = np.array(fronts[item.yaw])
                centre, half = (item.low + item.high)[:2] / 2, (item.high - item.low)[:2] / 2
                back = centre - front * half
                axis = int(np.abs(front).argmax())
                wall = 0.0 if front[axis] > 0 else layout.size[axis]
                assert abs(back[axis] - wall) <= 0.061, item.category.name


def test_a_chair_looks_along_its_yaw(layouts):
    """Its backrest, the only high part, lies on the side opposite to the front."""
    turned = set()
    for layout in layouts:
        for item in layout.objects:
            if item.category.name in ("chair", "sofa", "toilet"):
                centres = item.triangles.mean(axis=1)
                high = centres[centres[:, 2] > item.low[2] + 0.75 * (item.high[2] - item.low[2])]
                offset = high.mean(axis=0)[:2] - (item.low + item.high)[:2] / 2
                assert offset @ [np.cos(item.yaw), np.sin(item.yaw)] < -0.05, item.category.name
                turned.add((item.category.name, item.quarter))
    assert len(turned) == 12


def test_at_least_sixteen_furniture_categories_and_balanced_content(layouts):
    """A blind model cannot bank on a category, a count, a colour, or a colour for a category."""
    present = collections.Counter()
    colours = collections.Counter()
    several = 0
    for layout in layouts:
        counts = collections.Counter(o.category.name for o in layout.objects)
        present.update(counts.keys())
        colours.update(o.colour for o in layout.objects)
        several += any(n > 1 for name, n in counts.items() if name not in ("door", "window", "picture"))
        furniture = sum(o.category.placement != "hung" for o in layout.objects)
        assert 6 <= furniture <= 11
        assert 1 <= counts["door"] <= 2
        assert counts["window"] <= 2
        assert counts["picture"] <= 2
    shares = {name: n / ROOMS for name, n in present.items() if name not in ("door", "window", "picture")}
    assert len(shares) >= 16
    assert min(shares.values()) > 0.08
    assert max(shares.values()) < 0.5
    assert several / ROOMS > 0.8
    total = sum(colours.values())
    assert len(colours) == len(COLOURS) == 9
    assert max(colours.values()) / total < 1.3 / len(COLOURS)
    assert min(colours.values()) / total > 0.7 / len(COLOURS)


def test_counts_of_a_present_category_vary(layouts):
    chairs = collections.Counter(sum(o.category.name == "chair" for o in layout.objects) for layout in layouts)
    assert {0, 1, 2, 3} <= set(chairs)
    existing = sum(n for count, n in chairs.items() if count)
    assert chairs[1] / existing < 0.75


def test_the_photographer_stands_in_free_space_and_walks_without_jumps(layouts):
    for layout in layouts[:80]:
        walk = make_walk(layout, RoomConfig())
        places = walk.poses[:, :3, 3]
        assert ((places[:, 2] >= 1.3) & (places[:, 2] <= 1.7)).all()
        for item in layout.objects:
            inside = ((places[:, :2] > item.low[:2] - 0.1) & (places[:, :2] < item.high[:2] + 0.1)).all(axis=1)
            assert item.category.placement == "hung" or not inside.any()
        assert (places[:, :2] > 0.3).all()
        assert (places[:, :2] < np.array(layout.size[:2]) - 0.3).all()
        assert np.linalg.norm(np.diff(places[:, :2], axis=0), axis=1).max() <= 1.0 + 1e-9
        forward = walk.poses[:, :3, 2]
        heading = np.arctan2(forward[:, 1], forward[:, 0])
        turn = np.abs(np.degrees((np.diff(heading) + np.pi) % (2 * np.pi) - np.pi))
        assert turn.max() < 80, "consecutive views of 80 degrees must overlap"
        assert turn.sum() > 150, "the walk must look around"
        assert (forward[:, 2] < -0.15).all(), "a slight downward pitch"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**12), views=st.integers(1, 12))
def test_poses_are_rigid_and_level_for_any_seed(seed, views):
    config = RoomConfig(views=views)
    walk = make_walk(make_layout(seed, config), config)
    assert walk.poses.shape == (views, 4, 4)
    rotation = walk.poses[:, :3, :3]
    identity = np.broadcast_to(np.eye(3), rotation.shape)
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), identity, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-12)
    np.testing.assert_allclose(rotation[:, 2, 0], 0.0, atol=1e-12)
    assert (rotation[:, 2, 1] < 0).all(), "the image's y axis points down"


def test_impossible_requests_are_refused_with_the_setting_named():
    with pytest.raises(SceneError, match=r"RoomConfig\.views is 0, expected 1 to"):
        RoomConfig(views=0)
    with pytest.raises(SceneError, match=r"RoomConfig\.max_objects is 3, expected 6 to"):
        RoomConfig(max_objects=3)
    with pytest.raises(SceneError, match="seed is -1"):
        make_layout(-1)
