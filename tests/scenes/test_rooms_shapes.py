"""Primitives and models: closed, exact, outward, centred."""

import numpy as np
import pytest
import trimesh

from stereopsis.scenes.rooms.catalogue import BY_NAME, CATEGORIES, SIZES, unit_model
from stereopsis.scenes.rooms.layout import rotate_quarter
from stereopsis.scenes.rooms.shapes import cuboid, cylinder, ellipsoid, lathe, slab


def _solid(triangles: np.ndarray) -> trimesh.Trimesh:
    mesh = trimesh.Trimesh(triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3), process=False)
    mesh.merge_vertices(digits_vertex=6)
    return mesh


@pytest.mark.parametrize(
    ("triangles", "volume"),
    [
        (cuboid(-1, 1, 0, 3, 2, 4), 12.0),
        (slab((0, 0, 0), (2, 0, 1), (0, 3, 0), (0, 0, 1)), 6.0),
        # An inscribed dodecagon of radius r has area 3 r^2; its frustum is exact in the mean of areas.
        (cylinder(0.5, 0.0, 2.0), 1.5),
        (lathe([(1.0, 0.0), (0.5, 3.0)]), 3.0 * (1 + 0.5 + 0.25)),
        (lathe([(1.0, 0.0), (0.0, 3.0)], stretch=(2.0, 1.0)), 2.0 * 3.0),
    ],
    ids=["cuboid", "slab", "cylinder", "frustum", "elliptic cone"],
)
def test_primitives_are_closed_outward_solids_of_the_computed_volume(triangles, volume):
    mesh = _solid(triangles)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(volume, rel=1e-9)


def test_ellipsoid_fills_its_bounding_box():
    triangles = ellipsoid((1.0, 2.0, 3.0), (0.4, 0.3, 0.2))
    np.testing.assert_allclose(triangles.min(axis=(0, 1)), [0.6, 1.7, 2.8], atol=1e-12)
    np.testing.assert_allclose(triangles.max(axis=(0, 1)), [1.4, 2.3, 3.2], atol=1e-12)
    assert _solid(triangles).is_watertight


@pytest.mark.parametrize("name", CATEGORIES)
def test_models_stand_centred_on_the_origin_and_carry_surfaces_on_top_of_something(name):
    for size in SIZES:
        for variant in range(BY_NAME[name].variants):
            model = unit_model(name, size, variant)
            low, high = model.triangles.min(axis=(0, 1)), model.triangles.max(axis=(0, 1))
            np.testing.assert_allclose(low[:2], -high[:2], atol=1e-12)
            assert low[2] == pytest.approx(0, abs=1e-12)
            assert len(model.triangles) == len(model.roles)
            assert np.isfinite(model.triangles).all()
            for surface in model.surfaces:
                at_top = np.isclose(model.triangles[:, :, 2], surface.z).all(axis=1)
                assert at_top.any(), "a surface without a horizontal face under it"


def test_sizes_have_a_clear_gap():
    """The smallest "large" exceeds the largest "small" in volume by at least a fifth, jitter included."""
    for name in CATEGORIES:
        category = BY_NAME[name]
        volumes = {}
        for size, scale in (("small", category.small), ("large", category.large)):
            extents = [
                np.ptp(unit_model(name, size, v).triangles.reshape(-1, 3), axis=0) for v in range(category.variants)
            ]
            volumes[size] = [float(np.prod(extent * np.array(scale))) for extent in extents]
        jitter = 1.0 if category.placement == "hung" else (1.04 / 0.96) ** 3
        assert min(volumes["large"]) > 1.2 * jitter * max(volumes["small"]), name


def test_quarter_turns_are_exact_and_counter_clockwise():
    point = np.array([0.1, 0.7, 0.3])
    np.testing.assert_array_equal(rotate_quarter(point, 1), [-0.7, 0.1, 0.3])
    np.testing.assert_array_equal(rotate_quarter(rotate_quarter(point, 3), 1), point)
    np.testing.assert_array_equal(rotate_quarter(rotate_quarter(point, 2), 2), point)
