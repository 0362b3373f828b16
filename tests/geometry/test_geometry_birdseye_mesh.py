import sys

import numpy as np
import pytest
from scipy import ndimage

from stereopsis.errors import MissingExtraError
from stereopsis.geometry import TriangleMesh, join_meshes, pixel_of, raycast_birdseye, splat_birdseye, world_of

pytest.importorskip("embreex")

RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]
CUBE = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], dtype=np.float64)
SIDES = np.array(
    ["013", "032", "467", "475", "045", "051", "237", "276", "026", "064", "157", "173"],
    dtype="U3",
)
SIDES = SIDES.view("U1").reshape(-1, 3).astype(int)


def rectangle(x0, x1, y0, y1, z, colour, label=0):
    corners = np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]], dtype=np.float64)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    return TriangleMesh.from_faces(corners, faces, np.tile(np.array(colour, np.uint8), (4, 1))).labelled(label)


def box(low, high, colour, label):
    corners = np.array(low) + CUBE * (np.array(high) - np.array(low))
    return TriangleMesh.from_faces(corners, SIDES, np.tile(np.array(colour, np.uint8), (8, 1))).labelled(label)


def test_a_box_on_a_floor_by_hand():
    # 4 m x 4 m on 8 pixels: half a metre each. The box covers x 1..2, y 2.5..3 and is 0.75 m high.
    scene = join_meshes([rectangle(0, 4, 0, 3, 0.0, GREEN), box([1, 2.5, 0], [2, 3, 0.75], RED, 7)])
    view = raycast_birdseye(scene, size=8, extent=(0.0, 0.0, 4.0, 4.0))
    assert (view.metres_per_pixel, view.origin) == (0.5, (0.0, 4.0))
    void = np.zeros((8, 8), bool)
    void[:2] = True  # y above 3
    on_box = np.zeros((8, 8), bool)
    on_box[2, 2:4] = True
    np.testing.assert_array_equal(view.void, void)
    np.testing.assert_array_equal(view.labels, np.where(void, -1, np.where(on_box, 7, 0)))
    np.testing.assert_array_equal(view.height, np.where(void, np.nan, np.where(on_box, 0.75, 0)).astype(np.float32))
    np.testing.assert_array_equal(view.image[on_box], [RED, RED])
    assert (view.image[~void & ~on_box] == GREEN).all()
    assert (view.image[void] == 0).all()


def test_no_ray_slips_between_two_triangles():
    """The square's diagonal runs through pixel centres."""
    view = raycast_birdseye(rectangle(1.1, 4.43, 1.1, 4.43, 0.3, GREEN), size=101, extent=(1.1, 1.1, 4.43, 4.43))
    assert not view.void.any()


def room(ceiling):
    """A 5 x 4 m room with a blue cupboard; its walls have no thickness."""
    shell = box([0, 0, 0], [5, 4, ceiling], GREEN, 0)
    return join_meshes([shell, box([3, 1, 0], [4, 1.6, 2.0], BLUE, 3)])


@pytest.mark.parametrize("ceiling", [2.4, 3.3])
def test_the_ceiling_is_cut_by_the_same_rule_as_points(ceiling):
    view = raycast_birdseye(room(ceiling), size=108)
    assert view.metres_per_pixel * 108 == pytest.approx(5.2, abs=0.01)  # 5 m and the margin of 10 cm
    assert np.nanmax(view.height) == pytest.approx(2.0)
    closed = raycast_birdseye(room(ceiling), size=108, ceiling=None)
    assert np.nanmin(closed.height) == pytest.approx(ceiling)
    cut = raycast_birdseye(room(ceiling), size=108, ceiling=1.0)  # the cupboard is cut open: one sees its bottom
    assert np.nanmax(cut.height) == pytest.approx(0.0)
    assert (cut.labels == 3).any()
    at = raycast_birdseye(room(ceiling), size=108, ceiling=2.0)  # what lies at the limit stays
    np.testing.assert_array_equal(at.height, view.height)


def test_agrees_with_the_splat_of_dense_samples():
    rng = np.random.default_rng(4)
    tilted = rng.uniform([0, 0, 0.2], [5, 4, 1.9], (12, 1, 3)) + rng.uniform(-0.5, 0.5, (12, 3, 3))
    clutter = TriangleMesh(
        triangles=tilted, colours=rng.integers(0, 256, (12, 3, 3), dtype=np.uint8), labels=np.arange(10, 22)
    )
    mesh = join_meshes([room(2.6), clutter])
    extent = (-0.1, -0.6, 5.1, 4.6)
    view = raycast_birdseye(mesh, size=52, extent=extent)
    points = np.concatenate(
        [
            TriangleMesh(triangles=mesh.triangles[[i]], colours=mesh.colours[[i]], labels=mesh.labels[[i]]).sample(
                10_000
            )
            for i in range(len(mesh))
        ]
    )
    labels = np.repeat(mesh.labels, 10_000)
    colours = np.zeros((len(points), 3), np.uint8)
    splat = splat_birdseye(points, colours, labels=labels, size=52, extent=extent)
    # A ray sees the pixel's centre, the splat its highest point, and walls edge-on: compare away from edges,
    # that is where the splat's 3 x 3 neighbours all show one and the same surface.
    around = np.stack([np.roll(splat.labels, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    calm = (around == around[0]).all(axis=0) & (splat.labels >= 0)
    height = np.stack([np.roll(splat.height, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    wall = np.ptp(np.where(calm, height, 0), axis=0) > 1.0
    calm &= ~wall
    assert calm.sum() > 1200
    np.testing.assert_array_equal(view.labels[calm], splat.labels[calm])
    # Within a pixel of 10 cm a tilted surface rises further than at its centre; flat ones agree exactly.
    assert np.median(np.abs(view.height - splat.height)[calm]) < 1e-6
    assert np.quantile(np.abs(view.height - splat.height)[calm], 0.9) < 0.1
    # The splat sees the walls edge-on, a pixel's width around the floor; nothing else is void in one view only.
    assert not splat.void[~view.void].any()
    assert ndimage.binary_dilation(~view.void, np.ones((3, 3)))[~splat.void].all()


def test_holes_are_filled_and_recorded():
    strips = [rectangle(x, x + 0.9, 0, 9, 0.5, GREEN, label=x + 1) for x in range(9)]
    options = {"size": 90, "extent": (0.0, 0.0, 9.0, 9.0)}
    gaps = raycast_birdseye(join_meshes(strips), **options)
    assert gaps.filled is None
    assert gaps.void.mean() == pytest.approx(0.1)
    view = raycast_birdseye(join_meshes(strips), fill_radius=1.0, **options)
    assert view.filled.sum() == 8 * 88  # all gaps but the one at the border; their ends lie beside unseen space
    np.testing.assert_array_equal(view.measured, ~gaps.void)
    assert (view.height[view.filled] == 0.5).all()
    assert set(np.unique(view.labels[view.filled])) <= set(range(1, 10))


def test_pixels_and_world_agree_with_the_other_view():
    view = raycast_birdseye(rectangle(2, 3, 5, 6, 0, RED), size=16)
    uv = pixel_of(view, np.array([[2.0, 6.0], [3.0, 5.0]]))
    inside = np.zeros((16, 16), bool)
    (c0, r0), (c1, r1) = np.ceil(uv[0] - 0.5).astype(int), np.ceil(uv[1] - 0.5).astype(int)
    inside[r0:r1, c0:c1] = True
    np.testing.assert_array_equal(~view.void, inside)
    np.testing.assert_allclose(world_of(view, uv), [[2, 6], [3, 5]])


def test_refusals(monkeypatch):
    floor = rectangle(0, 1, 0, 1, 2.0, RED)
    with pytest.raises(ValueError, match=r"no surface to draw from above below 1\.00 m"):
        raycast_birdseye(floor, size=8, ceiling=1.0)
    with pytest.raises(ValueError, match="NaN"):
        raycast_birdseye(TriangleMesh(**{**vars(floor), "triangles": floor.triangles * np.nan}))
    with pytest.raises(ValueError, match="empty"):
        raycast_birdseye(floor, extent=(1.0, 1.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="size is 0"):
        raycast_birdseye(floor, size=0)
    monkeypatch.setitem(sys.modules, "embreex", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stereopsis\[rooms\]'"):
        raycast_birdseye(floor, size=8)
