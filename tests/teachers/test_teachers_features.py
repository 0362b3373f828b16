import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from stereopsis.errors import RecipeError
from stereopsis.geometry import Intrinsics
from stereopsis.teachers.feature_teachers import load_feature_teacher
from stereopsis.teachers.features import TeacherViews
from stereopsis.teachers.point_map import PointMapTeacher

SIZE, CELLS, FOCAL = 120, 10, 100.0
NORMAL, HEIGHT, EDGE, ROUGHNESS, PLANARITY = slice(30, 33), 33, 34, 35, 36


def camera(position, target):
    """T_aligned_camera of an upright camera: OpenCV axes, z up in the aligned frame."""
    forward = np.subtract(target, position) / np.linalg.norm(np.subtract(target, position))
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    T[:3, 3] = position
    return T


def rays(T):
    uv = (np.arange(SIZE) + 0.5 - SIZE / 2) / FOCAL
    x, y = np.meshgrid(uv, uv)
    return np.stack([x, y, np.ones_like(x)], axis=-1) @ T[:3, :3].T


def corner_room(T):
    """Points of a floor at z = 0 and a wall at y = 3, exactly."""
    direction, origin = rays(T), T[:3, 3]
    with np.errstate(divide="ignore"):
        floor = np.where(direction[..., 2] < 0, -origin[2] / direction[..., 2], np.inf)
        wall = np.where(direction[..., 1] > 0, (3 - origin[1]) / direction[..., 1], np.inf)
    depth = np.minimum(floor, wall)
    valid = np.isfinite(depth)
    return np.where(valid[..., None], origin + np.where(valid, depth, 0)[..., None] * direction, 0), valid


def views_of(cameras, surface=corner_room):
    shown = [surface(T) for T in cameras]
    return TeacherViews(
        images=torch.zeros(len(cameras), 3, SIZE, SIZE, dtype=torch.uint8),
        points=torch.from_numpy(np.stack([points for points, _ in shown])).float(),
        points_valid=torch.from_numpy(np.stack([valid for _, valid in shown])),
        T_aligned_camera=torch.from_numpy(np.stack(cameras)).float(),
        rows=CELLS,
        cols=CELLS,
        names=tuple(f"v{i}" for i in range(len(cameras))),
        scene_id="corner",
    )


def cell_means(views):
    """Mean point of each cell, by a plain reshape."""
    step = SIZE // CELLS
    return views.points.reshape(len(views.names), CELLS, step, CELLS, step, 3).mean(dim=(2, 4))


@pytest.fixture(scope="module")
def corner():
    # the second camera is the first one moved along the wall by exactly 1 m, looking the same way
    return views_of([camera((0, 0, 1.5), (0, 3, 0.8)), camera((1, 0, 1.5), (1, 3, 0.8))])


@pytest.fixture(scope="module")
def encoded(corner):
    return PointMapTeacher().encode(corner)


def test_shapes_and_hand_values(corner, encoded):
    teacher = PointMapTeacher()
    assert encoded.features.shape == (2, CELLS, CELLS, teacher.channels) == (2, CELLS, CELLS, 37)
    assert encoded.features.dtype == torch.float32
    assert encoded.valid.all()
    mean, feature = cell_means(corner)[0, 9, 4], encoded.features[0, 9, 4]
    for axis in range(3):
        for k, wavelength in enumerate((0.5, 1.0, 2.0, 4.0, 8.0)):
            turn = 2 * math.pi * mean[axis].item() / wavelength
            assert feature[10 * axis + k].item() == pytest.approx(math.sqrt(2) * math.sin(turn), abs=1e-4)
            assert feature[10 * axis + 5 + k].item() == pytest.approx(math.sqrt(2) * math.cos(turn), abs=1e-4)
    assert feature[HEIGHT].item() == pytest.approx((0 - 1.0) / 0.8, abs=1e-5)


def test_normals_point_up_from_the_floor_and_out_of_the_wall(corner, encoded):
    mean = cell_means(corner)
    on_floor, on_wall = mean[..., 2] < 0.001, mean[..., 1] > 2.999
    assert on_floor.sum() > 10
    assert on_wall.sum() > 10
    normals = encoded.features[..., NORMAL] / math.sqrt(3)
    # a pixel next to the corner may see a little of the other surface
    assert (normals[on_floor] - torch.tensor([0.0, 0, 1])).abs().max() < 0.06
    assert (normals[on_wall] - torch.tensor([0.0, -1, 0])).abs().max() < 0.06
    assert (normals[on_floor] - torch.tensor([0.0, 0, 1])).abs().median() < 1e-5


def test_the_same_spot_has_nearly_the_same_descriptor_from_two_views(corner):
    # the second camera stands elsewhere and looks from the side
    other = views_of([camera((0, 0, 1.5), (0, 3, 0.8)), camera((0.9, 0.2, 1.3), (0.1, 3, 0.9))])
    features = PointMapTeacher().encode(other).features.flatten(1, 2)
    means = cell_means(other).flatten(1, 2)
    distance = torch.cdist(means[0], means[1])
    similarity = torch.nn.functional.cosine_similarity(features[0][:, None], features[1][None], dim=-1)
    same, far = distance < 0.03, distance > 0.5
    assert same.sum() >= 3
    assert similarity[same].min() > 0.8
    assert similarity[far].mean() < 0.4
    assert similarity[same].min() > similarity[far].quantile(0.95)


def test_a_world_moved_by_all_wavelengths_changes_only_what_it_should(corner, encoded):
    # 8 m is a whole number of every wavelength, so moving room and cameras sideways by it changes nothing
    shift = torch.tensor([8.0, -16.0, 0.0])
    T = corner.T_aligned_camera.clone()
    T[:, :3, 3] += shift
    moved = dataclasses.replace(corner, points=corner.points + shift, T_aligned_camera=T)
    torch.testing.assert_close(PointMapTeacher().encode(moved).features, encoded.features, atol=2e-3, rtol=0)
    shift = torch.tensor([0.25, 0.0, 0.0])
    T = corner.T_aligned_camera.clone()
    T[:, :3, 3] += shift
    moved = dataclasses.replace(corner, points=corner.points + shift, T_aligned_camera=T)
    features = PointMapTeacher().encode(moved).features
    assert (features[..., :10] - encoded.features[..., :10]).abs().mean() > 0.3  # x
    torch.testing.assert_close(features[..., 10:], encoded.features[..., 10:], atol=2e-3, rtol=0)  # y, z, shape


def test_one_view_does_not_depend_on_the_others(corner, encoded):
    alone = dataclasses.replace(
        corner,
        images=corner.images[1:],
        points=corner.points[1:],
        points_valid=corner.points_valid[1:],
        T_aligned_camera=corner.T_aligned_camera[1:],
        names=corner.names[1:],
    )
    assert torch.equal(PointMapTeacher().encode(alone).features[0], encoded.features[1])


def test_depth_edges_and_flatness_show():
    def pillar(T):
        points, valid = corner_room(T)
        columns = slice(SIZE // 2 - 6, SIZE // 2 + 6)  # straddles two columns of cells
        direction = rays(T)[:, columns]
        points[:, columns] = T[:3, 3] + direction * 1.0
        return points, valid

    T = camera((0, 0, 1.5), (0, 3, 1.5))
    flat = PointMapTeacher().encode(views_of([T])).features[0]
    edged = PointMapTeacher().encode(views_of([T], pillar)).features[0]
    row = 2  # looks at the wall only
    assert flat[row, 5, EDGE] < edged[row, 5, EDGE] - 1  # the pillar's border
    assert flat[row, 5, ROUGHNESS] < edged[row, 5, ROUGHNESS] - 1
    assert flat[row, 5, PLANARITY] > edged[row, 5, PLANARITY]
    assert torch.equal(flat[row, 0], edged[row, 0])


def test_cells_without_enough_depth_are_invalid_and_zero(corner):
    valid = corner.points_valid.clone()
    valid[0, :12, :12] = False  # cell (0, 0): nothing
    valid[0, :12, 12:24] = False
    valid[0, :3, 12:24] = True  # cell (0, 1): exactly a quarter
    valid[0, :12, 24:36] = False
    valid[0, :2, 24:36] = True  # cell (0, 2): a sixth
    points = corner.points.masked_fill(~valid[..., None], float("nan"))  # invalid points may hold anything
    broken = dataclasses.replace(corner, points=points, points_valid=valid)
    result = PointMapTeacher().encode(broken)
    assert result.valid[0, 0, :4].tolist() == [False, True, False, True]
    assert (result.features[~result.valid] == 0).all()
    assert result.features.isfinite().all()
    assert result.valid[1].all()
    strict = PointMapTeacher(min_valid_fraction=0.5).encode(broken)
    assert strict.valid[0, 0, :4].tolist() == [False, False, False, True]


def test_no_depth_at_all_is_invalid_everywhere(corner):
    none = dataclasses.replace(corner, points_valid=torch.zeros_like(corner.points_valid))
    result = PointMapTeacher().encode(none)
    assert not result.valid.any()
    assert (result.features == 0).all()


def test_grids_that_do_not_divide_the_image(corner):
    ragged = dataclasses.replace(corner, rows=7, cols=9)
    result = PointMapTeacher().encode(ragged)
    assert result.features.shape[1:3] == (7, 9)
    assert result.valid.all()


def test_no_gradient_reaches_the_points(corner):
    points = corner.points.clone().requires_grad_()
    assert not PointMapTeacher().encode(dataclasses.replace(corner, points=points)).features.requires_grad


def test_fingerprint_follows_the_settings():
    base = PointMapTeacher().fingerprint
    assert base == PointMapTeacher().fingerprint
    assert base != PointMapTeacher(wavelengths=(1.0, 2.0)).fingerprint
    assert base != PointMapTeacher(min_valid_fraction=0.5).fingerprint
    assert PointMapTeacher(wavelengths=(1.0, 2.0)).channels == 19


def test_bad_settings_and_views_are_refused(corner):
    with pytest.raises(ValueError, match="must be positive"):
        PointMapTeacher(wavelengths=(0.0,))
    with pytest.raises(ValueError, match=r"expected 0\.\.1"):
        PointMapTeacher(min_valid_fraction=2.0)
    with pytest.raises(ValueError, match="2 views but 1 names"):
        dataclasses.replace(corner, names=("a",))
    with pytest.raises(ValueError, match="200 x 10 cells over 120 x 120"):
        dataclasses.replace(corner, rows=200)


def test_unknown_teacher_is_refused_with_the_nearest_name():
    assert load_feature_teacher("point_map").channels == 37
    with pytest.raises(RecipeError, match=r"'point_mab' \(did you mean 'point_map'\?\)"):
        load_feature_teacher("point_mab")


@pytest.mark.parametrize(("fit", "aspect"), [("squash", 4 / 3), ("crop", 1.0)])
def test_views_know_what_field_they_show(corner, fit, aspect):
    """A 4:3 frame squeezed into a square still shows 4:3; its centre crop does not."""
    K = Intrinsics(fx=500.0, fy=500.0, cx=320.0, cy=240.0, width=640, height=480)
    small = K.resized(SIZE, SIZE) if fit == "squash" else K.resized(160, SIZE).cropped(20, 0, SIZE, SIZE)
    matrix = torch.from_numpy(small.matrix).float().expand(len(corner.names), 3, 3)
    assert dataclasses.replace(corner, intrinsics=matrix).field_aspect == pytest.approx(aspect, rel=1e-6)
    assert corner.field_aspect == 1.0  # unknown intrinsics: the picture's own


def test_packs_hand_teachers_the_students_own_views():
    """The same pixels, points, cameras, names and intrinsics as the student gets."""
    pytest.importorskip("embreex")
    from stereopsis.packs.build import PackConfig, build_pack
    from stereopsis.packs.targets import Teachers
    from stereopsis.scenes.rooms import make_room

    class Recorder(PointMapTeacher):
        def encode(self, views):
            self.seen = views
            return super().encode(views)

    teacher = Recorder()
    config = PackConfig(
        image_size=48, fit="squash", view_grid=(6, 4), encoder_grid=(6, 6), positions="depth", views=3, tasks=()
    )
    pack = build_pack(make_room(7_000_000_000), config, Teachers(features=teacher))
    seen = teacher.seen
    assert seen.names == pack.frame_names
    assert (seen.rows, seen.cols, seen.scene_id) == (6, 4, pack.scene_id)
    for theirs, ours in [(seen.images, pack.images), (seen.intrinsics, pack.intrinsics)]:
        assert torch.equal(theirs, ours)
    assert torch.equal(seen.T_aligned_camera, pack.cameras)
    assert pack.view_targets["view_features"].shape == (3, 6, 4, 37)


def test_rooms_give_standardised_features():
    pytest.importorskip("embreex")
    from stereopsis.scenes.rooms import make_room

    points, valid, cameras = [], [], []
    for seed in range(7_000_000_100, 7_000_000_104):
        room = make_room(seed)
        for frame in room.frames:
            k, depth, T = frame.intrinsics, frame.depth(), room.T_aligned_camera(frame)
            u, v = np.meshgrid(np.arange(k.width) + 0.5, np.arange(k.height) + 0.5)
            local = np.stack([(u - k.cx) / k.fx * depth, (v - k.cy) / k.fy * depth, depth], axis=-1)
            points.append(local @ T[:3, :3].T + T[:3, 3])
            valid.append(depth > 0)
            cameras.append(T)
    views = TeacherViews(
        images=torch.zeros(len(points), 3, *valid[0].shape, dtype=torch.uint8),
        points=torch.from_numpy(np.stack(points)).float(),
        points_valid=torch.from_numpy(np.stack(valid)),
        T_aligned_camera=torch.from_numpy(np.stack(cameras)).float(),
        rows=6,
        cols=6,
        names=tuple(str(i) for i in range(len(points))),
        scene_id="rooms",
    )
    result = PointMapTeacher().encode(views)
    features = result.features[result.valid]
    assert result.valid.float().mean() > 0.9
    assert (features.mean(dim=0).abs() < 1.1).all()
    assert ((features.std(dim=0) > 0.3) & (features.std(dim=0) < 1.8)).all()


KITCHEN = Path(__file__).resolve().parents[3] / "shared" / "data" / "seven_scenes_redkitchen"


@pytest.mark.skipif(not KITCHEN.is_dir(), reason="the kitchen capture is not on this machine")
def test_real_depth_agrees_between_neighbouring_views():
    from PIL import Image

    points, valid, cameras = [], [], []
    for name in ("frame-000000", "frame-000008"):
        depth = np.array(Image.open(KITCHEN / f"{name}.depth.png"))[::4, ::4].astype(np.float64)
        known = (depth > 0) & (depth < 65535)
        z = np.where(known, depth / 1000, 0)
        u, v = np.meshgrid(np.arange(160) * 4 + 0.5, np.arange(120) * 4 + 0.5)
        T = np.loadtxt(KITCHEN / f"{name}.pose.txt")
        local = np.stack([(u - 320) / 585 * z, (v - 240) / 585 * z, z], axis=-1)
        points.append(local @ T[:3, :3].T + T[:3, 3])
        valid.append(known)
        cameras.append(T)
    views = TeacherViews(
        images=torch.zeros(2, 3, 120, 160, dtype=torch.uint8),
        points=torch.from_numpy(np.stack(points)).float(),
        points_valid=torch.from_numpy(np.stack(valid)),
        T_aligned_camera=torch.from_numpy(np.stack(cameras)).float(),
        rows=12,
        cols=16,
        names=("frame-000000", "frame-000008"),
        scene_id="kitchen",
    )
    result = PointMapTeacher().encode(views)
    shown = views.points.where(views.points_valid[..., None], 0.0).reshape(2, 12, 10, 16, 10, 3).sum(dim=(2, 4))
    count = views.points_valid.reshape(2, 12, 10, 16, 10).sum(dim=(2, 4))
    mean = (shown / count.clamp(min=1)[..., None]).flatten(1, 2)
    usable = result.valid.flatten(1)[0][:, None] & result.valid.flatten(1)[1][None]
    distance = torch.cdist(mean[0], mean[1])
    features = result.features.flatten(1, 2)
    similarity = torch.nn.functional.cosine_similarity(features[0][:, None], features[1][None], dim=-1)
    same, far = usable & (distance < 0.04), usable & (distance > 0.5)
    assert same.sum() > 20
    assert similarity[same].mean() > 0.75
    assert similarity[far].mean() < 0.35
