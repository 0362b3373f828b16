import dataclasses

import numpy as np
import pytest
from PIL import Image

from stereopsis.errors import SceneError
from stereopsis.geometry import TriangleMesh, raycast_birdseye
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.surfaces.mesh_views import NOTHING, MeshRenderer
from stereopsis.scenes.surfaces.meshes import read_mesh, write_mesh
from stereopsis.scenes.walk import FloorPlan, free_positions, look, plan_walk

SCENE = "scannet/scene0000_00"


def tetrahedron():
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float64)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.uint8)
    return TriangleMesh.from_faces(corners, faces, colours)


def test_a_mesh_survives_writing(tmp_path):
    mesh = tetrahedron()
    file = write_mesh(mesh, tmp_path / "deep" / "mesh.ply")
    back = read_mesh(file)
    np.testing.assert_array_equal(back.triangles, mesh.triangles)
    np.testing.assert_array_equal(back.colours, mesh.colours)
    assert b"element vertex 4" in file.read_bytes()[:400]  # equal corners are joined
    assert [entry.name for entry in file.parent.iterdir()] == ["mesh.ply"]
    with pytest.raises(SceneError, match=r"written as \.ply"):
        write_mesh(mesh, tmp_path / "mesh.obj")


def test_meshes_without_colours_are_grey(tmp_path):
    (tmp_path / "plain.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert (read_mesh(tmp_path / "plain.obj").colours == 160).all()


BROKEN = {
    "empty.ply": (b"", "the 0 bytes found cannot be read as a mesh"),
    "text.ply": (b"hello", "the 5 bytes found cannot be read as a mesh"),
    "index.ply": (
        b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        b"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n",
        "triangles name vertices 0 to 7, but there are 3",
    ),
    "nan.obj": (b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "1 of 3 vertices are NaN or inf"),
    "points.obj": (b"v 0 0 0\nv 1 0 0\n", "holds no triangles"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_meshes_are_refused(tmp_path, name):
    content, words = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SceneError, match=words) as error:
        read_mesh(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(SceneError, match=r"nothing.ply: the mesh cannot be read.*check the path"):
        read_mesh(tmp_path / "nothing.ply")


def test_the_renderer_agrees_with_the_rooms_own():
    pytest.importorskip("embreex")
    from stereopsis.scenes.rooms import RoomConfig, make_room, make_room_mesh

    room, exact = make_room(2, RoomConfig(views=2, width=40, height=30)), make_room_mesh(2)
    mesh = TriangleMesh(
        triangles=exact.triangles,
        colours=np.repeat(exact.colours[:, None], 3, axis=1),
        labels=exact.objects.astype(np.int32),
    )
    renderer = MeshRenderer(mesh)
    for frame in room.frames:
        view = renderer.render(frame.intrinsics, frame.T_world_camera)
        np.testing.assert_array_equal(view.depth, frame.depth())
        np.testing.assert_array_equal(view.labels, renderer.labels(frame.intrinsics, frame.T_world_camera))
        # Without lamps, each pixel has its triangle's own colour.
        known = {tuple(colour) for colour in exact.colours[np.isin(exact.objects, view.labels)].tolist()}
        assert {tuple(colour) for colour in view.colour.reshape(-1, 3).tolist()} <= known


def test_rays_that_meet_nothing_are_told():
    pytest.importorskip("embreex")
    camera = Intrinsics(fx=10.0, fy=10.0, cx=5.0, cy=4.0, width=10, height=8)
    view = MeshRenderer(tetrahedron()).render(camera, look(np.array([-3.0, 0.2, 0.2]), 0.0, 0.0))
    nothing = view.labels == NOTHING
    assert 0 < nothing.sum() < nothing.size
    np.testing.assert_array_equal(nothing, view.depth == 0)
    assert not view.colour[nothing].any()


def test_a_walk_through_a_plan_keeps_its_distances():
    boxes = np.array([[1.0, 1.0, 2.0, 2.0], [3.0, 0.0, 4.0, 3.0]])
    plan = FloorPlan(boxes=boxes, tall=boxes[1:], targets=boxes[:, :2] + 0.5, size=(6.0, 4.0, 2.5))
    poses = plan_walk(np.random.default_rng(0), plan, views=20, horizontal_fov_degrees=70.0)
    at = poses[:, :3, 3]
    assert (at[:, :2] > 0.35).all()
    assert (at[:, :2] < [5.65, 3.65]).all()
    assert not ((at[:, None, :2] > boxes[:, :2] - 0.22) & (at[:, None, :2] < boxes[:, 2:] + 0.22)).all(axis=2).any()
    assert (np.linalg.norm(np.diff(at[:, :2], axis=0), axis=1) <= 1.0).all()
    full = dataclasses.replace(plan, boxes=np.array([[0.0, 0.0, 6.0, 4.0]]))
    assert len(free_positions(full)) == 0
    with pytest.raises(SceneError, match=r"6\.00 x 4\.00 m with 1 obstacles leaves no place"):
        plan_walk(np.random.default_rng(0), full, views=2, horizontal_fov_degrees=70.0)


@pytest.fixture(scope="module")
def scan(shared_data):
    """A real scan in its own frame, and the aligned frame."""
    pytest.importorskip("embreex")
    folder = shared_data / SCENE
    return read_mesh(folder / "scene0000_00_vh_clean_2.ply"), np.loadtxt(folder / "axis_align_matrix.txt")


def test_a_real_scan_rendered_from_a_real_pose_resembles_the_photograph(scan, shared_data):
    folder = shared_data / SCENE
    pose = np.loadtxt(folder / "posed_images" / "00000.txt")
    camera = Intrinsics.from_matrix(np.loadtxt(folder / "intrinsic_color.txt"), 1296, 968).resized(162, 121)
    view = MeshRenderer(scan[0]).render(camera, pose)
    photo = np.asarray(Image.open(folder / "posed_images" / "00000.jpg").resize((162, 121), Image.Resampling.BOX))
    seen = view.depth > 0
    assert seen.mean() > 0.7
    grey = [image.mean(axis=2)[seen] for image in (view.colour.astype(float), photo.astype(float))]
    assert np.corrcoef(*grey)[0, 1] > 0.6  # 0.66 to 0.72 for single vertices; mirrored or inverted poses give nothing


def test_a_real_scan_from_above(scan):
    mesh, T = scan
    view = raycast_birdseye(mesh.transformed(T), size=216, fill_radius=2.0)
    assert view.void.mean() < 0.2
    assert 0 < view.filled.mean() < 0.03
    assert 0.025 < view.metres_per_pixel < 0.045  # a room of about 8 x 8 m
    # Aligned, the floor is level and at zero; most of what is seen is floor.
    assert np.abs(np.median(view.height[view.measured & (view.height < 0.15)])) < 0.05
    assert (np.abs(view.height[view.measured]) < 0.1).mean() > 0.3
