import dataclasses
import json
import os
import pickle
import sys

import numpy as np
import pytest

from stereopsis.errors import MissingExtraError, SceneError
from stereopsis.geometry.camera import Intrinsics, camera_rays, project, unproject
from stereopsis.scenes.readers.scannet import read_scannet
from stereopsis.scenes.surfaces import mesh_depth
from stereopsis.scenes.surfaces.mesh_depth import cast_depth, with_mesh_depth
from stereopsis.scenes.surfaces.meshes import read_indexed_mesh

CAMERA = Intrinsics(fx=20.0, fy=22.0, cx=12.5, cy=7.75, width=24, height=16)
SQUARE = np.array([[-50.0, -50, 2], [50, -50, 2], [50, 50, 2], [-50, 50, 2]])
TRIANGLES = [[0, 1, 2], [0, 2, 3]]


@pytest.fixture(autouse=True)
def fresh_cache():
    """Meshes of one test shall not serve another."""
    mesh_depth._build_target.cache_clear()


@pytest.fixture
def make_mesh(tmp_path):
    def make(vertices=SQUARE, triangles=TRIANGLES, name="mesh.obj"):
        lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in np.asarray(vertices)]
        lines += ["f " + " ".join(str(number + 1) for number in triangle) for triangle in triangles]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    return make


def test_a_wall_has_one_depth_wherever_one_looks(make_mesh):
    pytest.importorskip("embreex")
    depth = cast_depth(make_mesh(), CAMERA, np.eye(4))
    assert depth.dtype == np.float32
    assert depth.shape == (16, 24)
    np.testing.assert_allclose(depth, 2.0, rtol=1e-6)  # z-depth, not the ray's length


def test_a_slope_by_hand(make_mesh):
    """The plane z = 2 + x / 2: along the ray (d, ., 1), z = 2 / (1 - d / 2)."""
    pytest.importorskip("embreex")
    slope = SQUARE.copy()
    slope[:, 2] = 2 + slope[:, 0] / 2
    across = (np.arange(24) + 0.5 - 12.5) / 20.0
    depth = cast_depth(make_mesh(slope), CAMERA, np.eye(4))
    np.testing.assert_allclose(depth, np.broadcast_to(2 / (1 - across / 2), (16, 24)), rtol=1e-5)


def test_nothing_hit_is_zero_and_the_nearest_surface_wins(make_mesh):
    """A square of 1 m at 2 m before one at 3 m, both off to the right of the axis."""
    pytest.importorskip("embreex")
    near = np.array([[0.0, -0.5, 2], [1, -0.5, 2], [1, 0.5, 2], [0, 0.5, 2]])
    mesh = make_mesh(np.concatenate([near, near + np.array([0, 0, 1])]), [*TRIANGLES, [4, 5, 6], [4, 6, 7]])
    depth = cast_depth(mesh, CAMERA, np.eye(4))
    rays = camera_rays(CAMERA, np.eye(4)).directions
    x, y = rays[..., 0], rays[..., 1]
    expected = np.where((x * 3 >= 0) & (x * 3 <= 1) & (np.abs(y * 3) <= 0.5), 3.0, 0.0)
    expected = np.where((x * 2 >= 0) & (x * 2 <= 1) & (np.abs(y * 2) <= 0.5), 2.0, expected)
    assert {0.0, 2.0} <= set(expected.ravel())
    np.testing.assert_allclose(depth, expected, rtol=1e-6)


def test_it_does_not_matter_where_the_world_has_its_origin(make_mesh):
    """A kilometre away float32 has steps of 0.06 mm; the depth stays exact."""
    pytest.importorskip("embreex")
    slope = SQUARE.copy()
    slope[:, 2] = 2 + slope[:, 0] / 2
    away = np.array([1024.0, -2048.0, 512.0])
    pose = np.eye(4)
    pose[:3, 3] = away
    here = cast_depth(make_mesh(slope), CAMERA, np.eye(4))
    there = cast_depth(make_mesh(slope + away, name="far.obj"), CAMERA, pose)
    np.testing.assert_allclose(there, here, rtol=1e-6)


def test_a_scene_gets_depth_where_it_has_none(make_scene, make_mesh):
    pytest.importorskip("embreex")
    scene = make_scene()
    plain = dataclasses.replace(scene.frames[1], load_depth=None, T_world_camera=np.eye(4))
    scene = scene.replace(frames=(scene.frames[0], plain, scene.frames[2]))
    path = make_mesh()
    filled = with_mesh_depth(scene, path)
    assert filled.frames[0] is scene.frames[0]
    np.testing.assert_allclose(pickle.loads(pickle.dumps(filled.frames[1].load_depth))(), 2.0, rtol=1e-6)
    assert filled.frames[1].depth_intrinsics is None
    assert filled.provenance["depth"] == {"source": "mesh", "mesh": str(path), "frames": 1, "max_side": 640}
    assert filled.provenance["format"] == "test"
    json.dumps(filled.provenance)
    replaced = with_mesh_depth(scene, path, replace=True)
    assert replaced.provenance["depth"]["frames"] == 3
    np.testing.assert_allclose(replaced.frames[0].depth(), 2.0, rtol=1e-6)


def test_a_mesh_in_coordinates_of_its_own(make_scene, make_mesh):
    """The mesh's wall z = 2 is moved by 3 m and the camera by 1 m: 4 m are left."""
    pytest.importorskip("embreex")
    T_world_mesh, pose = np.eye(4), np.eye(4)
    T_world_mesh[2, 3], pose[2, 3] = 3.0, 1.0
    frame = dataclasses.replace(make_scene().frames[0], load_depth=None, T_world_camera=pose)
    scene = with_mesh_depth(make_scene(objects=()).replace(frames=(frame,)), make_mesh(), T_world_mesh=T_world_mesh)
    np.testing.assert_allclose(scene.frames[0].depth(), 4.0, rtol=1e-6)


def test_smaller_depth_is_sampled_through_its_own_pixel_centres(make_scene, make_mesh):
    pytest.importorskip("embreex")
    slope = SQUARE.copy()
    slope[:, 2] = 2 + slope[:, 0] / 2
    scene = make_scene(frames=1)
    frame = dataclasses.replace(scene.frames[0], load_depth=None, T_world_camera=np.eye(4))
    frame = with_mesh_depth(scene.replace(frames=(frame,)), make_mesh(slope), max_side=12).frames[0]
    camera = frame.depth_intrinsics
    assert camera == Intrinsics(fx=10.25, fy=10.625, cx=6.0, cy=4.0, width=12, height=8)
    points = unproject(frame.depth(), camera, np.eye(4)).points
    np.testing.assert_allclose(points[..., 2], 2 + points[..., 0] / 2, rtol=1e-5)
    full = with_mesh_depth(scene.replace(frames=(frame,)), make_mesh(), max_side=None, replace=True).frames[0]
    assert (full.depth().shape, full.depth_intrinsics) == ((16, 24), None)


def test_a_mesh_is_loaded_once_and_again_when_it_changes(make_mesh, monkeypatch):
    pytest.importorskip("embreex")
    loads = []
    monkeypatch.setattr(mesh_depth, "read_indexed_mesh", lambda path: loads.append(path) or read_indexed_mesh(path))
    path = make_mesh()
    for _ in range(3):
        cast_depth(path, CAMERA, np.eye(4))
    assert loads == [path]
    make_mesh(SQUARE + np.array([0, 0, 1]))
    os.utime(path, ns=(1, 1))
    np.testing.assert_allclose(cast_depth(path, CAMERA, np.eye(4)), 3.0, rtol=1e-6)
    assert loads == [path, path]


def test_without_embree_the_extra_is_named(make_mesh, monkeypatch):
    monkeypatch.setitem(sys.modules, "embreex", None)
    with pytest.raises(MissingExtraError, match=r"depth from a mesh needs.*'embreex'.*'stereopsis\[rooms\]'"):
        cast_depth(make_mesh(), CAMERA, np.eye(4))


def test_meshes_that_cannot_serve(make_scene, make_mesh, tmp_path):
    with pytest.raises(SceneError, match=r"none.ply: no such mesh"):
        with_mesh_depth(make_scene(), tmp_path / "none.ply")
    with pytest.raises(SceneError, match=r"max_side=0: expected a positive"):
        with_mesh_depth(make_scene(), make_mesh(), max_side=0)
    with pytest.raises(SceneError, match=r"T_world_mesh: rotation is not orthonormal"):
        with_mesh_depth(make_scene(), make_mesh(), T_world_mesh=np.diag([2.0, 2, 2, 1]))
    with pytest.raises(SceneError, match=r"gone.ply: the mesh cannot be read"):
        cast_depth(tmp_path / "gone.ply", CAMERA, np.eye(4))
    (tmp_path / "cloud.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        "end_header\n1 2 3\n"
    )
    with pytest.raises(SceneError, match=r"cloud.ply: holds no triangles.*not its point cloud"):
        cast_depth(tmp_path / "cloud.ply", CAMERA, np.eye(4))
    (tmp_path / "mesh.pickle").write_bytes(b"")
    with pytest.raises(SceneError, match=r"expected a mesh file \(.ply, .obj"):
        read_indexed_mesh(tmp_path / "mesh.pickle")


def test_vertices_keep_their_numbers(tmp_path):
    """Twins, vertices that no triangle uses, and texture seams: nothing is merged, dropped or split."""
    vertices = "0 0 0 0 0\n1 0 0 1 0\n0 1 0 0 1\n0 0 0 .5 .5\n9 9 9 0 0\n"
    header = "ply\nformat ascii 1.0\ncomment TextureFile ../secret.png\nelement vertex 5\n"
    header += "".join(f"property float {name}\n" for name in ("x", "y", "z", "s", "t"))
    header += "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "mesh.ply").write_text(header + vertices + "3 0 1 2\n3 3 2 1\n")
    mesh = read_indexed_mesh(tmp_path / "mesh.ply")
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [9, 9, 9]]
    assert mesh.faces.tolist() == [[0, 1, 2], [3, 2, 1]]


def test_real_views_agree_with_each_other(shared_data):
    """A point seen in one view lies at the depth that the other view has there, but for what hides it."""
    pytest.importorskip("embreex")
    scene = read_scannet(shared_data / "scannet" / "scene0000_00", objects=False)
    one, two, other = scene.frames
    assert (one.name, two.name, other.name) == ("00000", "00011", "00102")
    for source, target in ((one, two), (two, one)):
        depth, there = source.depth(), target.depth()
        assert (depth > 0).mean() > 0.98  # the mesh has few holes
        cloud = unproject(depth, source.depth_intrinsics, source.T_world_camera)
        landed = project(cloud.points[cloud.valid], target.depth_intrinsics, target.T_world_camera)
        column, row = np.floor(landed.pixels).astype(int).T
        inside = (landed.depth > 0) & (column >= 0) & (column < 640) & (row >= 0) & (row < 478)
        seen = there[row[inside], column[inside]]
        ahead = landed.depth[inside][seen > 0] - seen[seen > 0]
        assert inside.mean() > 0.4
        assert (np.abs(ahead) < 0.02).mean() > 0.9
        assert (ahead < -0.02).mean() < 0.02  # nothing is seen through a surface, but for the rims of pixels
    # The third view looks the other way.
    cloud = unproject(other.depth(), other.depth_intrinsics, other.T_world_camera)
    landed = project(cloud.points[cloud.valid], one.depth_intrinsics, one.T_world_camera)
    assert not ((landed.depth > 0) & (landed.pixels >= 0).all(axis=1) & (landed.pixels < [640, 478]).all(axis=1)).any()
