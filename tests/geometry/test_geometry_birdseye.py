import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.geometry import (
    BirdsEyeView,
    ceiling_height,
    fill_small_holes,
    pixel_of,
    splat_birdseye,
    world_of,
)
from stereopsis.scenes.scene import BirdsEyeView as SceneBirdsEyeView

RED, GREEN, BLUE = (np.array(c, dtype=np.uint8) for c in ([255, 0, 0], [0, 255, 0], [0, 0, 255]))


def test_scenes_use_the_same_type():
    assert SceneBirdsEyeView is BirdsEyeView


def test_hand_picture():
    # 2 m x 2 m on 4 pixels: half a metre each. Low x left, high y up.
    points = np.array([[0.1, 1.9, 0.0], [1.9, 0.1, 0.0], [0.1, 0.1, 1.0], [0.2, 0.2, 0.5], [0.1, 0.1, 9.0]])
    colours = np.stack([RED, GREEN, BLUE, RED, GREEN])
    view = splat_birdseye(points, colours, size=4, extent=(0.0, 0.0, 2.0, 2.0), ceiling=2.0)
    assert view.metres_per_pixel == 0.5
    assert view.origin == (0.0, 2.0)
    expected = np.zeros((4, 4, 3), dtype=np.uint8)
    expected[0, 0], expected[3, 3], expected[3, 0] = RED, GREEN, BLUE
    np.testing.assert_array_equal(view.image, expected)
    np.testing.assert_array_equal(view.void, (expected == 0).all(axis=-1))
    everything = splat_birdseye(points, colours, size=4, extent=(0.0, 0.0, 2.0, 2.0), ceiling=None)
    np.testing.assert_array_equal(everything.image[3, 0], GREEN)


def test_equal_heights_the_last_wins_and_outside_is_dropped():
    points = np.array([[0.5, 0.5, 1.0], [0.5, 0.5, 1.0], [1.5, 0.5, 5.0], [-0.1, 0.5, 5.0]])
    view = splat_birdseye(points, np.stack([RED, GREEN, BLUE, BLUE]), size=1, extent=(0.0, 0.0, 1.0, 1.0), ceiling=None)
    np.testing.assert_array_equal(view.image, GREEN.reshape(1, 1, 3))


def test_black_points_are_not_void():
    view = splat_birdseye(np.zeros((1, 3)), np.zeros((1, 3), dtype=np.uint8), size=3)
    assert view.void.sum() == 8
    assert not view.void[1, 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]))
def test_equals_slow_z_buffer(seed, dtype):
    rng = np.random.default_rng(seed)
    points = rng.uniform([-1, -2, 0], [3, 1, 2], (300, 3)).astype(dtype)
    points[:, 2] = np.round(points[:, 2], 1)  # many ties
    colours = rng.integers(0, 256, (300, 3), dtype=np.uint8)
    size = int(rng.integers(1, 12))
    view = splat_birdseye(points, colours, size=size, extent=(-1.0, -2.0, 3.0, 1.0), ceiling=1.5)
    image, height = np.zeros((size, size, 3), dtype=np.uint8), np.full((size, size), -np.inf)
    for point, colour in zip(points, colours, strict=True):
        if point[2] > 1.5:
            continue
        col, row = (int(np.floor(value)) for value in pixel_of(view, point[:2]))
        if point[2] >= height[row, col]:
            image[row, col], height[row, col] = colour, point[2]
    np.testing.assert_array_equal(view.image, image)
    np.testing.assert_array_equal(view.void, np.isinf(height))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_automatic_extent_shows_all_centred_at_one_scale(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-5, 0, 2)
    span = rng.uniform(0.5, 8, 2)
    points = np.concatenate([low + span * rng.random((200, 2)), rng.random((200, 1))], axis=1)
    view = splat_birdseye(points, np.full((200, 3), 200, dtype=np.uint8), size=64, margin=0.1)
    uv = pixel_of(view, points[:, :2])
    assert ((uv > 0) & (uv < 64)).all()
    np.testing.assert_allclose((uv.min(axis=0) + uv.max(axis=0)) / 2, [32, 32], atol=1e-9)
    assert view.metres_per_pixel * 64 == pytest.approx(np.ptp(points[:, :2], axis=0).max() + 0.2)
    np.testing.assert_allclose(world_of(view, uv), points[:, :2], atol=1e-12)


def test_stray_points_do_not_shrink_the_room():
    rng = np.random.default_rng(0)
    points = rng.uniform([0, 0, 0], [4, 4, 1], (20_000, 3))
    points[:5, :2] = 80.0
    view = splat_birdseye(points, np.full((20_000, 3), 9, dtype=np.uint8))
    assert view.metres_per_pixel * 432 == pytest.approx(4.2, abs=0.02)


def room(rng, *, ceiling: float | None, count=40_000):
    """A 5 x 4 m room of 2.6 m high walls, a floor, a cupboard, and perhaps a ceiling."""
    floor = rng.uniform([0, 0, 0], [5, 4, 0], (count, 3))
    walls = rng.uniform([0, 0, 0], [5, 4, 2.6], (count, 3))
    side = rng.integers(0, 4, count)
    walls[side == 0, 0], walls[side == 1, 0], walls[side == 2, 1], walls[side == 3, 1] = 0, 5, 0, 4
    cupboard = rng.uniform([3, 1, 2.0], [4, 1.6, 2.0], (count // 20, 3))
    parts = [floor, walls, cupboard]
    if ceiling is not None:
        parts.append(rng.uniform([0, 0, ceiling], [5, 4, ceiling], (count, 3)) + rng.normal(0, 0.01, (count, 3)))
    return np.concatenate(parts)


@pytest.mark.parametrize("ceiling", [2.4, 2.6, 3.3])
def test_ceiling_is_found_and_cut(ceiling):
    points = room(np.random.default_rng(1), ceiling=ceiling)
    assert ceiling_height(points) == pytest.approx(ceiling, abs=0.03)
    colours = np.where(points[:, 2:] > ceiling - 0.15, RED, GREEN)
    view = splat_birdseye(points, colours, size=64)
    assert not (view.image == RED).all(axis=-1).any()
    shifted = points + np.array([0, 0, 7.0])  # heights count from the floor, not from zero
    assert ceiling_height(shifted) == pytest.approx(ceiling + 7, abs=0.03)


def test_no_ceiling_no_cut():
    points = room(np.random.default_rng(1), ceiling=None)
    assert ceiling_height(points) is None
    table = points[points[:, 2] < 1.5]
    assert ceiling_height(table) is None
    assert ceiling_height(points[:0]) is None


def test_refusals():
    grey = np.full((1, 3), 9, dtype=np.uint8)
    with pytest.raises(ValueError, match=r"no points to draw from above below 1\.00 m"):
        splat_birdseye(np.array([[0.0, 0.0, 2.0]]), grey, ceiling=1.0)
    with pytest.raises(ValueError, match="NaN"):
        splat_birdseye(np.full((1, 3), np.nan), grey)
    with pytest.raises(ValueError, match="empty"):
        splat_birdseye(np.zeros((1, 3)), grey, extent=(1.0, 1.0, 0.0, 0.0))


def test_fill_small_holes():
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    void = np.ones((40, 40), dtype=bool)
    image[10:30, 10:30], void[10:30, 10:30] = 50, False
    outline = void.copy()
    void[15, 15], void[20:22, 20] = True, True  # small holes
    void[24:29, 12:28] = True  # a wide one: 5 pixels
    image[void] = 0
    view = BirdsEyeView(image=image, void=void, origin=(0.0, 0.0), metres_per_pixel=0.1)
    filled = fill_small_holes(view, 1.5)
    expected = void.copy()
    expected[15, 15], expected[20:22, 20] = False, False
    assert (filled.void[:24] == expected[:24]).all()
    assert (filled.void == void)[25:28, 13:27].all()  # the middle of the wide hole stays
    assert filled.void[outline].all()  # nothing grows outwards
    assert (filled.image[~filled.void] == 50).all()
    assert (filled.image[filled.void] == 0).all()
    assert fill_small_holes(view, 4.0).void.sum() == outline.sum()
    assert fill_small_holes(view, 0.0) is view
    with pytest.raises(ValueError, match="radius"):
        fill_small_holes(view, -1.0)


def test_heights_and_labels_belong_to_the_point_that_is_seen():
    points = np.array([[0.5, 0.5, 1.0], [0.5, 0.5, 2.0], [0.5, 0.5, 2.0], [1.5, 0.5, -3.0]])
    colours = np.stack([RED, GREEN, BLUE, RED])
    view = splat_birdseye(
        points, colours, labels=np.array([5, 6, 7, 8]), size=2, extent=(0.0, -1.0, 2.0, 1.0), ceiling=None
    )
    np.testing.assert_array_equal(view.image[0], np.stack([BLUE, RED]))
    np.testing.assert_array_equal(view.labels, [[7, 8], [-1, -1]])
    np.testing.assert_array_equal(view.height, np.array([[2, -3], [np.nan, np.nan]], dtype=np.float32))
    assert view.height.dtype == np.float32
    assert splat_birdseye(points, colours, size=2, ceiling=None).labels is None


def test_filled_pixels_are_told_from_measured_ones():
    grid = np.stack(np.meshgrid(np.arange(9) + 0.5, np.arange(9) + 0.5), axis=-1).reshape(-1, 2)
    kept = ~np.all(grid == 4.5, axis=1)
    points = np.column_stack([grid, grid[:, 0]])[kept]
    options = {"labels": np.full(80, 3), "size": 9, "extent": (0.0, 0.0, 9.0, 9.0), "ceiling": None}
    plain = splat_birdseye(points, np.full((80, 3), 7, np.uint8), **options)
    assert plain.filled is None
    assert np.argwhere(plain.void).tolist() == [[4, 4]]
    view = splat_birdseye(points, np.full((80, 3), 7, np.uint8), fill_radius=1.0, **options)
    assert not view.void.any()
    assert np.argwhere(view.filled).tolist() == np.argwhere(~view.measured).tolist() == [[4, 4]]
    assert view.labels[4, 4] == 3
    assert view.height[4, 4] in (3.5, 4.5, 5.5)  # one of its four neighbours'
    assert fill_small_holes(view, 2.0) is view
    np.testing.assert_array_equal(view.height[~view.filled], plain.height[~plain.void])


def test_a_stray_point_kilometres_away_does_not_hide_the_ceiling():
    points = room(np.random.default_rng(1), ceiling=2.6, count=4_000)
    far = np.concatenate([points, [[90_000.0, 90_000.0, 1.0]]])
    assert ceiling_height(far) == pytest.approx(ceiling_height(points), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 500, 60_000]))
def test_the_automatic_extent_is_that_of_sorted_coordinates(seed, count):
    rng = np.random.default_rng(seed)
    xy = rng.normal(size=(count, 2)) ** 3
    points = np.concatenate([xy, np.zeros((count, 1))], axis=1)
    trim, margin = 0.01, 0.5
    view = splat_birdseye(points, np.zeros((count, 3), dtype=np.uint8), size=8, trim=trim, margin=margin)
    ordered = np.sort(xy, axis=0)
    low, high = ordered[int(np.floor((count - 1) * trim))], ordered[int(np.ceil((count - 1) * (1 - trim)))]
    assert view.metres_per_pixel * 8 == pytest.approx(float((high - low).max()) + 2 * margin)
    corner = (low + high) / 2 + view.metres_per_pixel * 4 * np.array([-1, 1])
    np.testing.assert_allclose(view.origin, corner, atol=1e-9)
