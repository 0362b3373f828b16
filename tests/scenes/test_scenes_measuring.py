"""Distances and sizes, and how sure one can be of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes import Frame, Scene
from stereopsis.scenes.measuring import Survey, UnknownScaleError, measure, nearest_points, scale_of

CAMERA = Intrinsics(fx=100.0, fy=100.0, cx=50.0, cy=50.0, width=100, height=100)


def wall(*depths, provenance=None):
    """Views from the origin along z, each of which measures a flat wall at another depth."""
    frames = tuple(
        Frame(
            name=f"view-{number}",
            T_world_camera=np.eye(4),
            intrinsics=CAMERA,
            load_colour=lambda: np.zeros((100, 100, 3), np.uint8),
            load_depth=lambda depth=depth: np.full((100, 100), depth, np.float32),
        )
        for number, depth in enumerate(depths)
    )
    return Scene(id="wall", frames=frames, provenance=provenance or {})


def test_two_points():
    found = measure(wall(2.0, 2.0), [0.0, 0.0, 2.0], [0.3, 0.4, 2.0])
    assert found.distance == pytest.approx(0.5)
    assert found.horizontal == pytest.approx(0.5)
    assert found.vertical == 0.0
    assert "0.50 ± 0.03 m apart" in found.sentence  # two pixels of 2 cm: 2 * sqrt(2) * 1 cm


def test_two_boxes_are_apart_by_their_nearest_surfaces():
    a, b = [0.0, 0.0, 2.0, 1.0, 1.0, 1.0], [3.0, 0.0, 2.0, 2.0, 1.0, 0.5]
    found = measure(wall(2.0), a, b)
    assert found.distance == pytest.approx(1.5)
    assert found.centres == pytest.approx(3.0)
    assert found.things[1].floor_area == pytest.approx(2.0)
    assert measure(wall(2.0), a, [0.4, 0.4, 2.0, 1.0, 1.0, 1.0]).distance == 0.0
    assert measure(wall(2.0), a, [0.0, 0.0, 4.0]).distance == pytest.approx(1.5)


def test_the_size_of_one():
    found = measure(wall(2.0), [0.0, 0.0, 2.0, 0.5, 0.4, 0.2])
    assert found.distance is None
    assert found.things[0].size == (0.5, 0.4, 0.2)
    assert "0.50 x 0.40 x 0.20" in found.sentence
    assert "0.20 m² of floor" in found.sentence


def test_the_uncertainty_is_how_far_the_views_disagree():
    spread = Survey(wall(1.98, 2.00, 2.02)).spread([0.0, 0.0, 2.0])
    assert spread.views == 3
    assert spread.sigma == pytest.approx(np.hypot(0.02, 0.01), rel=1e-3)  # scatter, and half a pixel of 2 cm
    far = Survey(wall(2.0, 2.0, 5.0)).spread([0.0, 0.0, 2.0])
    assert far.views == 2  # the third looks at something else
    assert Survey(wall(2.0)).spread([0.0, 0.0, 3.0]) is None
    single = Survey(wall(2.0)).spread([0.0, 0.0, 2.0])
    assert single.sigma == pytest.approx(np.hypot(0.0012 + 0.0019 * 1.6**2, 0.01), rel=1e-3)


def test_noise_in_depth_is_found_again():
    rng = np.random.default_rng(0)
    spread = Survey(wall(*rng.normal(2.0, 0.015, 40))).spread([0.0, 0.0, 2.0])
    assert spread.sigma == pytest.approx(np.hypot(0.015, 0.01), rel=0.25)


def test_a_place_that_nobody_saw_has_no_uncertainty():
    found = measure(wall(2.0), [0.0, 0.0, 2.0], [9.0, 9.0, 9.0])
    assert found.uncertainty is None
    assert "±" not in found.sentence


@pytest.mark.parametrize(
    ("said", "known"),
    [
        (None, True),
        ("1 metre per unit of the model, assumed; a COLMAP model made from images alone has an arbitrary unit", False),
        ("0.5 metres per unit of the model, as the caller told", True),
        ({"known": False, "words": "made from pictures"}, False),
        ({"known": True, "method": "a camera of known height"}, True),
    ],
)
def test_whether_lengths_are_metres(said, known):
    scene = wall(2.0, provenance=None if said is None else {"scale": said})
    assert scale_of(scene).known is known
    if not known:
        with pytest.raises(UnknownScaleError, match="--pose-unit"):
            measure(scene, [0.0, 0.0, 2.0], [1.0, 0.0, 2.0])


def test_pictures_alone_have_no_scale():
    bare = Scene(id="bare", frames=tuple(f for f in ()))
    assert not scale_of(bare).known


@pytest.mark.parametrize("wrong", [[1.0, 2.0], [np.nan, 0.0, 0.0], [0.0, 0.0, 0.0, -1.0, 1.0, 1.0]])
def test_what_is_no_thing(wrong):
    with pytest.raises(SceneError, match=r"point .* box"):
        measure(wall(2.0), wrong)


sides = st.floats(0, 3)
places = st.floats(-5, 5)
boxes = st.tuples(places, places, places, sides, sides, sides).map(np.array)


@given(boxes, boxes)
def test_nearest_points_lie_in_their_boxes_and_nothing_is_nearer(a, b):
    first, second = (np.array(end) for end in nearest_points(a, b))
    for end, box in ((first, a), (second, b)):
        assert (np.abs(end - box[:3]) <= box[3:] / 2 + 1e-9).all()
    found = np.linalg.norm(first - second)
    mirrored = nearest_points(b, a)
    assert found == pytest.approx(np.linalg.norm(np.subtract(*mirrored)))
    rng = np.random.default_rng(0)
    for _ in range(20):
        p, q = (box[:3] + (rng.random(3) - 0.5) * box[3:] for box in (a, b))
        assert found <= np.linalg.norm(p - q) + 1e-9
