import dataclasses
import sys

import numpy as np
import pytest
from scipy.spatial import cKDTree

from stereopsis.errors import FrameError, MissingExtraError, SceneError
from stereopsis.geometry.camera import Intrinsics, transform, unproject
from stereopsis.geometry.mesh import TriangleMesh
from stereopsis.scenes.alignment import align_scene, scene_points
from stereopsis.scenes.readers.seven_scenes import read_seven_scenes
from stereopsis.scenes.scene import Frame, Scene
from stereopsis.scenes.surfaces.fusion import FusionConfig, fuse_scene
from stereopsis.scenes.walk import look

pytest.importorskip("skimage")

CAMERA = Intrinsics(fx=40.0, fy=40.0, cx=32.0, cy=24.0, width=64, height=48)


def wall_frames(distances, colour=(200, 100, 50), **changes):
    """Views along the world's z axis from the origin: a flat wall at each distance."""
    return tuple(
        Frame(
            name=f"f{index}",
            T_world_camera=np.eye(4),
            intrinsics=CAMERA,
            load_colour=lambda: np.tile(np.array(colour, np.uint8), (48, 64, 1)),
            load_depth=lambda d=distance: np.full((48, 64), d, np.float32),
            **changes,
        )
        for index, distance in enumerate(distances)
    )


def vertices(mesh):
    return mesh.triangles.reshape(-1, 3)


def test_a_wall_lies_where_its_depth_says_and_faces_the_camera():
    scene = Scene(id="wall", frames=wall_frames([1.03]))
    mesh = fuse_scene(scene, FusionConfig(voxel=0.05))
    # z-depth is linear across the wall, so that zero is interpolated exactly.
    assert np.abs(vertices(mesh)[:, 2] - 1.03).max() < 1e-4
    corners = mesh.triangles
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normal[:, 2] < 0).all()  # towards the camera at z = 0
    half = 1.03 * np.array([32, 24]) / 40
    reached = np.abs(vertices(mesh)[:, :2]).max(axis=0)
    assert (reached > half - 0.11).all()
    assert (reached < half + 0.05).all()  # what was not seen stays open
    assert (np.abs(mesh.colours.astype(int) - [200, 100, 50]) <= 1).all()
    assert (mesh.labels == 0).all()


def test_views_are_averaged_and_rare_ones_can_be_dropped():
    scene = Scene(id="wall", frames=wall_frames([1.0, 1.0, 1.06]))
    mesh = fuse_scene(scene, FusionConfig(voxel=0.04))
    np.testing.assert_allclose(vertices(mesh)[:, 2], 1.02, atol=1e-4)
    with pytest.raises(SceneError, match="no surface"):
        fuse_scene(scene, FusionConfig(voxel=0.04, min_views=4))
    np.testing.assert_array_equal(
        fuse_scene(scene, FusionConfig(voxel=0.04, max_frames=1)).triangles,
        fuse_scene(scene.replace(frames=scene.frames[:1]), FusionConfig(voxel=0.04)).triangles,
    )


def test_the_mesh_is_in_the_world_and_its_grid_in_the_aligned_frame():
    T = look(np.array([1.0, -2.0, 1.5]), yaw=0.7, pitch=-0.3)
    scene = Scene(id="wall", frames=wall_frames([1.0]), T_aligned_world=T)
    mesh = fuse_scene(scene, FusionConfig(voxel=0.05))
    assert np.abs(vertices(mesh)[:, 2] - 1.0).max() < 0.01
    assert np.abs(vertices(mesh).mean(axis=0)[:2]).max() < 0.1
    # Marching cubes puts vertices on the grid's edges: for most, two aligned coordinates lie on grid lines.
    steps = transform(T, vertices(mesh)) / 0.05
    phase = np.round(np.mod(steps, 1.0), 3) % 1.0
    shares = [np.unique(column, return_counts=True)[1].max() / len(column) for column in phase.T]
    assert min(shares) > 0.3  # without a common grid, a thousandth of the phases each


def test_depth_may_have_another_camera_than_colour():
    wide = Intrinsics(fx=80.0, fy=80.0, cx=64.0, cy=48.0, width=128, height=96)
    frames = wall_frames([1.0])
    colour = np.zeros((96, 128, 3), np.uint8)
    colour[:, 64:] = 250  # the right half
    frame = dataclasses.replace(frames[0], intrinsics=wide, depth_intrinsics=CAMERA, load_colour=lambda: colour)
    mesh = fuse_scene(Scene(id="wall", frames=(frame,)), FusionConfig(voxel=0.05))
    at, red = vertices(mesh)[:, 0], mesh.colours.reshape(-1, 3)[:, 0]
    assert (red[at > 0.06] == 250).all()
    assert (red[at < -0.06] == 0).all()


def test_a_rendered_room_is_recovered_to_within_a_voxel():
    pytest.importorskip("embreex")
    from stereopsis.scenes.rooms import RoomConfig, make_room, make_room_mesh

    room = make_room(5, RoomConfig(views=10, width=64, height=64))
    mesh = fuse_scene(room, FusionConfig(voxel=0.08))
    truth = make_room_mesh(5)
    exact = TriangleMesh(
        triangles=truth.triangles,
        colours=np.repeat(truth.colours[:, None], 3, axis=1),
        labels=truth.objects.astype(np.int32),
    )
    distance = cKDTree(exact.sample(200_000)).query(vertices(mesh)[::7])[0]
    assert len(distance) > 2000
    assert np.median(distance) < 0.04  # half a voxel
    assert np.quantile(distance, 0.9) < 0.12
    # Nearly all of the floor that the views show is there.
    seen = scene_points(room).points
    shown, fused = (
        {(int(x / 0.25), int(y / 0.25)) for x, y, z in points if abs(z) < 0.05} for points in (seen, vertices(mesh))
    )
    assert len(shown) > 80
    assert len(shown & fused) > 0.85 * len(shown)


def test_slabs_change_nothing(monkeypatch):
    scene = Scene(id="wall", frames=wall_frames([1.0, 1.02]))
    whole = fuse_scene(scene)
    monkeypatch.setattr("stereopsis.scenes.surfaces.fusion._SLAB_VOXELS", 2000)
    np.testing.assert_array_equal(fuse_scene(scene).triangles, whole.triangles)
    np.testing.assert_array_equal(fuse_scene(scene).colours, whole.colours)


def test_refusals(monkeypatch):
    scene = Scene(id="wall", frames=wall_frames([1.0]))
    with pytest.raises(SceneError, match=r"voxels, more than FusionConfig.max_voxels = 5,000; use larger voxels"):
        fuse_scene(scene, FusionConfig(voxel=0.01, max_voxels=5000))
    with pytest.raises(SceneError, match=r"no depth pixel between 0 and 0.5 m"):
        fuse_scene(scene, FusionConfig(max_depth=0.5))
    lost = dataclasses.replace(scene.frames[0], T_world_camera=np.full((4, 4), np.nan))
    with pytest.raises(FrameError, match=r"frame 'f0': unusable pose.*NaN"):
        fuse_scene(scene.replace(frames=(lost,)))
    with pytest.raises(SceneError, match="none of its 1 frames has depth"):
        fuse_scene(scene.replace(frames=(dataclasses.replace(scene.frames[0], load_depth=None),)))
    for wrong in ({"voxel": 0.0}, {"voxel": float("nan")}, {"min_views": 0}, {"truncation": 0.01}):
        with pytest.raises(SceneError, match=f"FusionConfig.{next(iter(wrong))} is"):
            FusionConfig(**wrong)
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stereopsis\[fusion\]'"):
        fuse_scene(scene)


def test_a_few_frames_of_a_real_kitchen(shared_data):
    scene = align_scene(read_seven_scenes(shared_data / "seven_scenes_redkitchen"), max_frames=12).scene
    scene = scene.replace(frames=scene.frames[:24:4])
    mesh = fuse_scene(scene, FusionConfig(voxel=0.06, max_depth=4.0))
    assert len(mesh) > 3000
    # The surfaces lie on the depth of a view that was not fused.
    frame = read_seven_scenes(shared_data / "seven_scenes_redkitchen").frames[10]
    cloud = unproject(frame.depth(), frame.intrinsics, frame.T_world_camera)
    near = cloud.valid & (frame.depth() < 3.0)
    distance = cKDTree(vertices(mesh)).query(cloud.points[near][::97])[0]
    assert np.median(distance) < 0.06
