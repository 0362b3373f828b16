"""Plane sweeping, combinations and scale, on views whose geometry is known exactly."""

import dataclasses

import numpy as np
import pytest
from textured_room import CAMERA, cast, walk

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import invert_pose
from stereopsis.providers.combination import Combination, fit_depth
from stereopsis.providers.pictures import held
from stereopsis.providers.plane_sweep import PlaneSweep
from stereopsis.providers.provider import EstimatedGeometry, EstimatedView, GeometryProvider
from stereopsis.providers.registry import make_provider
from stereopsis.providers.scale import NOMINAL_DEPTH, KnownDistance, scaled

POSES = walk(4)
SHOTS = [cast(T) for T in POSES]
PICTURES = [held(colour, f"p{n}") for n, (colour, _) in enumerate(SHOTS)]


def places_of(depth, step=24):
    rows, cols = np.mgrid[step // 2 : CAMERA.height : step, step // 2 : CAMERA.width : step]
    return np.stack([cols.ravel() + 0.5, rows.ravel() + 0.5, depth[rows, cols].ravel()], 1).astype(np.float64)


def truth(*, unit=1.0, metric=True):
    """Exact cameras and places, ``unit`` of theirs per metre."""
    views = {}
    for n, T in enumerate(POSES):
        pose = T.copy()
        pose[:3, 3] *= unit
        views[f"p{n}"] = EstimatedView(
            intrinsics=CAMERA, T_world_camera=pose, places=places_of(SHOTS[n][1]) * [1, 1, unit]
        )
    return EstimatedGeometry(views=views, metric=metric)


class Given(GeometryProvider):
    """Answers what it was made with."""

    name = "given"

    def __init__(self, answer, **facts):
        self.answer = answer
        self.__dict__.update(facts)

    def check(self):
        pass

    def estimate(self, pictures, *, in_order, known=None):
        return self.answer


def test_plane_sweep_measures_the_room():
    sweep = PlaneSweep(columns=80, planes=64)
    found = sweep.estimate(PICTURES, in_order=True, known=truth(unit=0.25))
    for n in (1, 2):
        depth = found.views[f"p{n}"].believed()
        real = SHOTS[n][1][2::4, 2::4] * 0.25
        ok = depth > 0
        assert ok.mean() > 0.7
        assert np.median(np.abs(depth[ok] / real[ok] - 1)) < 0.01
        assert np.mean(np.abs(depth[ok] / real[ok] - 1) < 0.05) > 0.93


def test_plane_sweep_with_inverted_cameras_believes_little():
    wrong = truth()
    views = {n: dataclasses.replace(v, T_world_camera=invert_pose(v.T_world_camera)) for n, v in wrong.views.items()}
    found = PlaneSweep(columns=80, planes=32).estimate(
        PICTURES, in_order=True, known=dataclasses.replace(wrong, views=views)
    )
    good = []
    for n in range(4):
        depth, real = found.views[f"p{n}"].believed(), SHOTS[n][1][2::4, 2::4]
        good.append(((np.abs(depth / real - 1) < 0.05) & (depth > 0)).mean())
    assert np.mean(good) < 0.3


def test_depth_is_fitted_robustly():
    view = truth(unit=2.0).views["p1"]
    places = view.places.copy()
    places[::5, 2] *= 1.8  # a fifth is wrong
    wrong = dataclasses.replace(view, places=places)
    own = EstimatedView(intrinsics=CAMERA, depth=(SHOTS[1][1] - 0.3) / 5)  # 2 z = 10 d + 0.6
    fit = fit_depth(own, wrong)
    assert fit.scale == pytest.approx(10, rel=0.02)
    assert fit.shift == pytest.approx(0.6, abs=0.1)
    assert fit_depth(own, dataclasses.replace(view, places=places[:5])) is None
    nowhere = dataclasses.replace(own, valid=np.zeros_like(own.depth, dtype=bool))
    assert fit_depth(nowhere, view) is None


def test_a_combination_takes_cameras_from_one_and_depth_from_the_other():
    dense = {
        f"p{n}": EstimatedView(intrinsics=CAMERA, depth=SHOTS[n][1] * (3 + n), valid=SHOTS[n][1] < 3) for n in range(3)
    }
    both = Combination(
        cameras=Given(truth(unit=0.5), name="a"), depths=Given(EstimatedGeometry(views=dense, metric=False))
    )
    found = both.estimate(PICTURES, in_order=True)
    for n in range(3):
        view = found.views[f"p{n}"]
        assert np.array_equal(view.T_world_camera, truth(unit=0.5).views[f"p{n}"].T_world_camera)
        ok = SHOTS[n][1] < 3
        assert np.allclose(view.believed()[ok], SHOTS[n][1][ok] * 0.5, rtol=1e-3)
        assert not view.believed()[~ok].any()
    assert found.views["p3"].depth is None
    assert both.name == "a+given"


def test_combinations_that_cannot_be():
    with pytest.raises(SceneError, match="estimates no cameras"):
        make_provider("plane_sweep+colmap")
    with pytest.raises(SceneError, match="estimates no dense depth"):
        make_provider("colmap+colmap")
    with pytest.raises(SceneError, match="did you mean 'colmap'"):
        make_provider("colmpa")
    with pytest.raises(SceneError, match="but no cameras"):
        make_provider("plane_sweep")
    assert make_provider("colmap").name == "colmap+plane_sweep"


def test_a_known_distance_between_cameras_gives_metres():
    real = float(np.linalg.norm(POSES[3][:3, 3] - POSES[0][:3, 3]))
    found, facts = scaled(truth(unit=0.2, metric=False), KnownDistance(metres=real, ends=("p0", "p3")))
    assert facts["known"]
    assert facts["factor"] == pytest.approx(5)
    assert np.allclose(found.views["p2"].T_world_camera, POSES[2])
    assert np.allclose(found.views["p2"].places, places_of(SHOTS[2][1]), rtol=1e-6)


def test_a_known_distance_between_pixels_gives_metres():
    half = truth(unit=0.5, metric=False)
    views = {n: dataclasses.replace(v, depth=SHOTS[int(n[1])][1] * np.float32(0.5)) for n, v in half.views.items()}
    half = dataclasses.replace(half, views=views)
    points = []
    for n, (x, y) in ((0, (100, 60)), (1, (210, 150))):
        z = SHOTS[n][1][y, x]
        points.append(POSES[n] @ [(x + 0.5 - CAMERA.cx) / CAMERA.fx * z, (y + 0.5 - CAMERA.cy) / CAMERA.fy * z, z, 1])
    real = float(np.linalg.norm(points[0] - points[1]))
    _, facts = scaled(half, KnownDistance(metres=real, ends=("p0:100.5,60.5", "p1:210.5,150.5")))
    assert facts["factor"] == pytest.approx(2, rel=0.01)
    for ends, words in (
        (("p0", "p9"), "no estimated picture 'p9'"),
        (("p0:a,b", "p1"), "two numbers"),
        (("p0:900,1", "p1"), "outside"),
        (("p1", "p1"), "same place"),
    ):
        with pytest.raises(SceneError, match=words):
            scaled(half, KnownDistance(metres=1.0, ends=ends))


def test_scale_stays_unknown_where_nobody_tells():
    found, facts = scaled(truth(unit=7.0, metric=False), None)
    assert facts["known"] is False
    middles = [np.median(view.places[:, 2]) for view in found.views.values()]
    assert np.median(middles) == pytest.approx(NOMINAL_DEPTH)
    same, facts = scaled(truth(), None)
    assert facts["known"]
    assert np.array_equal(same.views["p1"].T_world_camera, POSES[1])
