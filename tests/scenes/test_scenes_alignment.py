import dataclasses
import functools

import numpy as np
import pytest

from stereopsis.errors import SceneError
from stereopsis.geometry.birdseye import pixel_of
from stereopsis.geometry.camera import Intrinsics, camera_rays, transform
from stereopsis.scenes import Frame, Scene, open_scene, read_scene, write_scene
from stereopsis.scenes.alignment import align_scene, has_alignment, scene_points, with_birdseye

LOW, HIGH = np.array([-2.0, -1.5, 0.0]), np.array([2.0, 1.5, 2.4])
CAMERA = Intrinsics(fx=60.0, fy=60.0, cx=48.0, cy=36.0, width=96, height=72)
FLOOR, CEILING, WALLS = (0, 200, 0), (0, 0, 200), (200, 0, 0)


def _look(place, yaw, pitch):
    """A level camera (no roll) at a place, facing yaw, pitched down; degrees."""
    yaw, pitch = np.radians([yaw, pitch])
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = place
    return pose


def _seen(T_room_camera, camera, what):
    """Exact depth or colour of the inside of a box: for every ray the first of six planes."""
    rays = camera_rays(camera, T_room_camera)
    with np.errstate(divide="ignore"):
        to_low = (LOW - rays.origin) / rays.directions
        to_high = (HIGH - rays.origin) / rays.directions
    steps = np.where(rays.directions > 0, to_high, to_low)
    axis = steps.argmin(axis=-1)
    if what == "depth":
        return steps.min(axis=-1).astype(np.float32)
    up = rays.directions[..., 2] > 0
    colour = np.full((*axis.shape, 3), WALLS, dtype=np.uint8)
    colour[(axis == 2) & up] = CEILING
    colour[(axis == 2) & ~up] = FLOOR
    return colour


def _turn(seed):
    """A rotation and translation that have nothing to do with gravity."""
    rng = np.random.default_rng(seed)
    quaternion = rng.normal(size=4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = rng.normal(size=3)
    return pose


@pytest.fixture
def make_room():
    """An empty room of 4 x 3 x 2.4 m, seen by 16 cameras (up and down), in a world turned in any way."""

    def make(T_world_room=None, **frame_changes) -> Scene:
        T_world_room = np.eye(4) if T_world_room is None else T_world_room
        frames = []
        for index in range(16):
            place = [0.7 * np.cos(index), 0.6 * np.sin(index), 1.4]
            pose = _look(place, 45.0 * (index // 2), 50.0 if index % 2 else -15.0)
            frame = Frame(
                name=f"{index}",
                T_world_camera=T_world_room @ pose,
                intrinsics=CAMERA,
                load_colour=functools.partial(_seen, pose, CAMERA, "colour"),
                load_depth=functools.partial(_seen, pose, CAMERA, "depth"),
            )
            frames.append(dataclasses.replace(frame, **frame_changes))
        return Scene(id="box", frames=tuple(frames))

    return make


@pytest.mark.parametrize("seed", range(6))
def test_a_room_turned_in_any_way_stands_upright_again(make_room, seed):
    T_world_room = _turn(seed)
    aligned = align_scene(make_room(T_world_room), stride=1)
    T_aligned_room = aligned.scene.T_aligned_world @ T_world_room
    # Up to quarter turns about z and a shift, aligned = room: entries of the rotation are 0 or +-1.
    np.testing.assert_allclose(T_aligned_room[2, :3], [0, 0, 1], atol=2e-3)
    np.testing.assert_allclose(np.abs(T_aligned_room[:2, :2]).max(axis=1), 1, atol=2e-3)
    assert abs(T_aligned_room[2, 3]) < 0.01  # the floor is at z = 0
    assert aligned.alignment.confidence > 0.9
    facts = aligned.scene.provenance["alignment"]
    assert facts["method"] == "estimated"
    assert facts["frames"] == 16
    assert facts["confidence"] == aligned.alignment.confidence


def test_points_of_the_room_lie_on_its_walls(make_room):
    T_world_room = _turn(3)
    scene = make_room(T_world_room).replace(T_aligned_world=np.linalg.inv(T_world_room))
    for stride in (1, 3):
        cloud = scene_points(scene, stride=stride)
        assert len(cloud.points) == 16 * len(range(0, 72, stride)) * len(range(0, 96, stride))
        off = np.minimum(np.abs(cloud.points - LOW), np.abs(cloud.points - HIGH)).min(axis=1)
        assert off.max() < 1e-5
        floor = np.abs(cloud.points[:, 2]) < 1e-4
        edge = (np.abs(cloud.points[:, :2]) > HIGH[:2] - 1e-3).any(axis=1)
        assert (cloud.colours[floor & ~edge] == FLOOR).all()
        assert (cloud.colours[~floor & (cloud.points[:, 2] < 2.39)] == WALLS).all()


def test_colour_of_another_size_meets_the_same_rays(make_room):
    """Half the depth pixels per side, double the colour pixels: each still finds its own surface's colour."""
    scene = make_room()
    large = CAMERA.resized(192, 144)
    small = CAMERA.resized(48, 36)
    frames = []
    for frame in scene.frames:
        pose = frame.T_world_camera
        frames.append(
            dataclasses.replace(
                frame,
                intrinsics=large,
                load_colour=functools.partial(_seen, pose, large, "colour"),
                depth_intrinsics=small,
                load_depth=functools.partial(_seen, pose, small, "depth"),
            )
        )
    cloud = scene_points(scene.replace(frames=tuple(frames)))
    assert len(cloud.points) == 16 * 36 * 48
    inner = (np.abs(cloud.points[:, :2]) < HIGH[:2] - 0.05).all(axis=1)
    assert (cloud.colours[inner & (cloud.points[:, 2] < 0.01)] == FLOOR).all()
    assert (cloud.colours[~inner & (np.abs(cloud.points[:, 2] - 1.2) < 1.1)] == WALLS).all()


def test_depth_pixels_outside_the_colour_image_are_left_out(make_room):
    scene = make_room()
    narrow = CAMERA.cropped(24, 0, 48, 72)
    frame = scene.frames[0]
    frame = dataclasses.replace(
        frame,
        intrinsics=narrow,
        load_colour=functools.partial(_seen, frame.T_world_camera, narrow, "colour"),
        depth_intrinsics=CAMERA,
    )
    cloud = scene_points(scene.replace(frames=(frame,)))
    depth = _seen(frame.T_world_camera, CAMERA, "depth")
    assert len(cloud.points) == 72 * 48
    want = transform(frame.T_world_camera, camera_rays(narrow, np.eye(4)).directions * depth[:, 24:72, None])
    np.testing.assert_allclose(cloud.points, want.reshape(-1, 3), atol=1e-5)


def test_invalid_depth_is_left_out(make_room):
    scene = make_room(load_depth=lambda: np.pad(np.ones((10, 20), np.float32), ((0, 62), (0, 76))))
    assert len(scene_points(scene).points) == 16 * 200


def test_birdseye_shows_the_floor_below_the_ceiling(make_room):
    scene = with_birdseye(make_room(), size=60, extent=(-3.0, -3.0, 3.0, 3.0))
    view = scene.birdseye
    assert view.metres_per_pixel == pytest.approx(0.1)
    column, row = np.floor(pixel_of(view, np.array([0.0, 1.0]))).astype(int)
    assert (column, row) == (30, 20)
    seen = ~view.void
    assert seen[16:44, 11:49].mean() > 0.8  # the floor plan: 4 m x 3 m
    assert not seen[:14].any()  # y > 1.6 m lies outside
    assert not seen[:, :9].any()  # x < -2.1 m too
    inside = np.zeros_like(seen)
    inside[17:43, 12:48] = True
    assert (view.image[seen & inside] == FLOOR).all()  # what the walls' tops or a ceiling do not cover


def test_filling_closes_gaps_and_keeps_what_was_seen(make_room):
    bare = with_birdseye(make_room(), size=200).birdseye
    full = with_birdseye(make_room(), size=200, fill_radius=4.0).birdseye
    assert full.void.mean() < bare.void.mean() - 0.1
    assert not (full.void & ~bare.void).any()
    np.testing.assert_array_equal(full.image[~bare.void], bare.image[~bare.void])


def test_given_alignments_stay(make_room, make_scene):
    scene = make_scene()  # it has objects, whose boxes are in the aligned frame
    unturned = scene.replace(T_aligned_world=np.eye(4))
    for given in (scene, scene.replace(objects=(), proposals=()), unturned, unturned.replace(objects=())):
        assert has_alignment(given)
        aligned = align_scene(given)
        assert aligned.alignment is None
        np.testing.assert_array_equal(aligned.scene.T_aligned_world, given.T_aligned_world)
        assert aligned.scene.provenance["alignment"] == {"method": "given"}
    assert not has_alignment(make_room())


def test_an_alignment_is_found_once(make_room, tmp_path):
    first = align_scene(make_room(_turn(1))).scene
    stored = read_scene(write_scene(first, tmp_path / "scene"))
    second = align_scene(stored)
    assert second.alignment is None
    np.testing.assert_array_equal(second.scene.T_aligned_world, first.T_aligned_world)
    assert second.scene.provenance["alignment"]["method"] == "estimated"


def test_few_frames_are_spread_evenly(make_room):
    asked = []
    scene = make_room()

    def noted(name, load):
        asked.append(name)
        return load()

    frames = tuple(
        dataclasses.replace(frame, load_depth=functools.partial(noted, frame.name, frame.load_depth))
        for frame in scene.frames
    )
    scene_points(scene.replace(frames=frames), max_frames=3)
    assert asked == ["0", "7", "15"]


def test_scenes_that_cannot_be_aligned(make_room):
    with pytest.raises(SceneError, match=r"'box': none of its 16 frames has depth.*add them"):
        align_scene(make_room(load_depth=None))
    flat = functools.partial(np.zeros, (72, 96), np.float32)
    with pytest.raises(SceneError, match=r"'box' cannot be aligned.*T_aligned_world="):
        align_scene(make_room(load_depth=flat))
    with pytest.raises(SceneError, match=r"'box' cannot be drawn from above.*check its depth"):
        with_birdseye(make_room(load_depth=flat))


def test_the_real_kitchen_stands_upright(kitchen):
    scene = open_scene(kitchen)
    scene = scene.replace(frames=scene.frames[::4])
    aligned = align_scene(scene, max_frames=16)
    assert aligned.alignment.confidence > 0.5
    R = aligned.scene.T_aligned_world[:3, :3]
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-9)
    # Someone holds the camera above the floor and below the ceiling, and mostly looks ahead or down.
    poses = np.stack([aligned.scene.T_aligned_camera(frame) for frame in aligned.scene.frames])
    assert (poses[:, 2, 3] > 0.8).all()
    assert (poses[:, 2, 3] < 2.0).all()
    assert (poses[:, 2, 1] < -0.5).all()  # image down is world down
    view = with_birdseye(aligned.scene, size=128, max_frames=16, stride=4).birdseye
    assert 3.0 < 128 * view.metres_per_pixel < 8.0  # a kitchen, not a street
    assert 0.2 < 1 - view.void.mean() < 0.9
