import dataclasses
import math

import numpy as np
import pytest

from stereopsis.geometry.camera import Intrinsics
from stereopsis.geometry.lens import Lens, pinhole_for, undistort_colour, undistort_nearest

CAMERA = Intrinsics(fx=100.0, fy=100.0, cx=100.0, cy=100.0, width=200, height=200)
LENSES = {
    "barrel": Lens(camera=CAMERA, radial=(-0.2, 0.05)),
    "pincushion": Lens(camera=CAMERA, radial=(0.15,)),
    "tangential": Lens(camera=CAMERA, radial=(-0.1,), tangential=(0.01, -0.02)),
    "rational": Lens(camera=CAMERA, radial=(0.3, 0.1, 0.02), rational=(0.4, 0.1, 0.01)),
    "fisheye": Lens(camera=CAMERA, fisheye=True, radial=(0.05, -0.01, 0.002, -0.0005)),
    "thin prism": Lens(camera=CAMERA, fisheye=True, radial=(0.02,), tangential=(0.001, 0.002), prism=(0.003, -0.002)),
}


def test_shift_by_hand():
    """At the corner of a 200x200 image with f = 100, r^2 = 2: k1 = 0.01 moves it by 0.02 of 100 sqrt(2) pixels."""
    assert Lens(camera=CAMERA, radial=(0.01,)).shift() == pytest.approx(0.02 * 100 * math.sqrt(2))
    # r (0.01 r^2 - 0.005 r^4) is largest at r^2 = 1.2, not at the corner, where it is 0.
    assert Lens(camera=CAMERA, radial=(0.01, -0.005)).shift() == pytest.approx(0.5258, abs=1e-3)
    # p1 = 0.01 at the corner (1, 1): dx = 0.02, dy = 0.01 * (2 + 2) = 0.04.
    assert Lens(camera=CAMERA, tangential=(0.01, 0.0)).shift() == pytest.approx(100 * math.hypot(0.02, 0.04))
    assert Lens(camera=CAMERA, radial=(0.0, 0.0)).shift() == 0.0


def test_models_by_hand():
    """The direction (1, 0, 1): 45 degrees, r = 1."""
    x, y = np.array([1.0]), np.array([0.0])
    assert Lens(camera=CAMERA, radial=(0.1, 0.02)).distorted(x, y)[0] == pytest.approx([100 + 112])
    assert Lens(camera=CAMERA, radial=(0.5,), rational=(0.25,)).distorted(x, y)[0] == pytest.approx([100 + 120])
    assert Lens(camera=CAMERA, fisheye=True).distorted(x, y)[0] == pytest.approx([100 + 100 * math.pi / 4])
    angle = math.pi / 4
    bent = angle * (1 + 0.1 * angle**2)
    assert Lens(camera=CAMERA, fisheye=True, radial=(0.1,)).distorted(x, y)[0] == pytest.approx([100 + 100 * bent])
    assert Lens(camera=CAMERA, prism=(0.01, 0.02)).distorted(x, y)[1] == pytest.approx([100 + 2])
    column, row = Lens(camera=CAMERA, fisheye=True).distorted(np.zeros(1), np.zeros(1))
    assert (column[0], row[0]) == (100, 100)


@pytest.mark.parametrize("name", LENSES)
def test_every_pixel_of_the_pinhole_was_seen_and_no_wider_one_is(name):
    lens = LENSES[name]
    target = pinhole_for(lens)
    assert (target.cx, target.cy, target.width, target.height) == (100, 100, 200, 200)

    def outside(camera):
        x, y = np.meshgrid((np.arange(200) + 0.5 - 100) / camera.fx, (np.arange(200) + 0.5 - 100) / camera.fy)
        column, row = lens.distorted(x, y)
        return ((column < 0) | (column > 200) | (row < 0) | (row > 200)).any() or np.hypot(x, y).max() > lens.reach()

    assert not outside(target)
    assert outside(dataclasses.replace(target, fx=target.fx * 0.97, fy=target.fy * 0.97))


@pytest.mark.parametrize("name", LENSES)
def test_each_pixel_shows_what_the_lens_saw_in_its_direction(name):
    """A picture that is a smooth function of its own pixel, so that the right value is known in between."""
    lens = LENSES[name]
    target = pinhole_for(lens)

    def picture(u, v):
        return 120 + 60 * np.sin(u / 20) + 40 * np.cos(v / 15)

    u, v = np.meshgrid(np.arange(200) + 0.5, np.arange(200) + 0.5)
    seen = np.rint(np.repeat(picture(u, v)[..., None], 3, -1)).astype(np.uint8)
    straight = undistort_colour(seen, lens, target)
    expected = picture(*lens.distorted((u - 100) / target.fx, (v - 100) / target.fy))
    assert np.abs(straight[1:-1, 1:-1, 0] - expected[1:-1, 1:-1]).max() < 1.5  # rounding twice, and bilinear


def test_depth_is_taken_never_mixed():
    lens = LENSES["barrel"]
    target = pinhole_for(lens)
    depth = np.where(np.arange(200)[None] < 100, 1.0, 3.0).repeat(200, 0).astype(np.float32)
    straight = undistort_nearest(depth, lens, target)
    assert set(np.unique(straight)) == {1.0, 3.0}
    np.testing.assert_array_equal(straight, np.where(np.arange(200)[None] < 100, 1.0, 3.0).repeat(200, 0))


def test_a_pinhole_stays_as_it_is():
    lens = Lens(camera=CAMERA)
    assert lens.straight
    target = pinhole_for(lens)
    assert target.fx == pytest.approx(100, rel=1e-5)
    picture = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    np.testing.assert_array_equal(undistort_colour(picture, lens, CAMERA), picture)


def test_folded_pictures_are_refused():
    with pytest.raises(ValueError, match="folds"):
        pinhole_for(Lens(camera=CAMERA, radial=(-1e6,)))
    assert Lens(camera=CAMERA, radial=(-0.5,)).reach() == pytest.approx(math.sqrt(1 / 1.5), abs=5e-3)


def test_smaller_depth_has_the_same_lens_smaller():
    small = LENSES["barrel"].resized(100, 50)
    assert small.camera == CAMERA.resized(100, 50)
    x, y = np.array([0.3]), np.array([-0.2])
    column, row = LENSES["barrel"].distorted(x, y)
    assert small.distorted(x, y) == (pytest.approx(column / 2), pytest.approx(row / 4))
