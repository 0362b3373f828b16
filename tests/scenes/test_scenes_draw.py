import dataclasses

import numpy as np
import pytest
from PIL import Image

from stereopsis.errors import SceneError
from stereopsis.geometry.birdseye import BirdsEyeView
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes import SceneObject
from stereopsis.scenes.draw import (
    PALETTE,
    box_edges_in_view,
    colour_depth,
    contact_sheet,
    draw_birdseye,
    draw_boxes_in_view,
)

CAMERA = Intrinsics(fx=100.0, fy=100.0, cx=50.0, cy=40.0, width=100, height=80)
BLACK = np.zeros((80, 100, 3), dtype=np.uint8)


def _pixels(picture: Image.Image, colour) -> np.ndarray:
    """[n, 2] columns and rows of the pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(picture) == colour).all(axis=-1))
    return np.stack([columns, rows], axis=-1)


def test_edges_by_hand():
    """A cube of 2 m, its centre 5 m ahead: the front face spans 50 px, the back face 33 1/3 px."""
    edges = box_edges_in_view(np.array([0, 0, 5, 2, 2, 2.0]), CAMERA, np.eye(4))
    assert edges.shape == (12, 2, 2)
    corners = {tuple(np.round(corner, 3)) for corner in edges.reshape(-1, 2)}
    front = {(50 + sx * 25, 40 + sy * 25) for sx in (-1, 1) for sy in (-1, 1)}
    back = {(round(50 + sx * 50 / 3, 3), round(40 + sy * 50 / 3, 3)) for sx in (-1, 1) for sy in (-1, 1)}
    assert corners == front | back
    lengths = sorted(np.linalg.norm(edges[:, 0] - edges[:, 1], axis=1).round(3))
    assert lengths == sorted([33.333] * 4 + [50.0] * 4 + [round(25 / 3 * 2**0.5, 3)] * 4)


def test_edges_move_with_the_camera():
    """Moving box and camera together changes nothing."""
    box = np.array([0.3, -0.2, 5, 1, 2, 0.5])
    pose = np.eye(4)
    pose[:3, 3] = [1.0, -2.0, 0.5]
    moved = box.copy()
    moved[:3] += pose[:3, 3]
    np.testing.assert_allclose(
        box_edges_in_view(moved, CAMERA, pose), box_edges_in_view(box, CAMERA, np.eye(4)), atol=1e-9
    )


def test_what_is_behind_the_camera_is_cut_off():
    assert len(box_edges_in_view(np.array([0, 0, -5, 2, 2, 2.0]), CAMERA, np.eye(4))) == 0
    around = box_edges_in_view(np.array([0, 0, 0, 2, 2, 2.0]), CAMERA, np.eye(4))
    assert len(around) == 8  # 4 edges ahead, 4 cut at 5 cm; the 4 behind are gone
    # An edge along the viewing direction starts where z = 0.05: x / z * f = 1 / 0.05 * 100 = 2000 px off
    # centre. assert np.abs(around - [50, 40]).max() == pytest.approx(2000.0)
    picture = draw_boxes_in_view(BLACK, CAMERA, np.eye(4), [np.array([0, 0, -5, 2, 2, 2.0])], labels=["no"])
    assert not np.asarray(picture).any()


def test_a_box_is_drawn_where_it_is():
    box = np.array([0, 0, 5, 2, 2, 2.0])
    pixels = _pixels(draw_boxes_in_view(BLACK, CAMERA, np.eye(4), [box], [(255, 0, 0)]), (255, 0, 0))
    assert len(pixels) > 200
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    np.testing.assert_allclose(low, [25, 15], atol=1)
    np.testing.assert_allclose(high, [75, 65], atol=1)
    centre = (np.abs(pixels - [50, 40]) < 12).all(axis=1)
    assert not centre.any()  # only edges


def test_drawing_leaves_the_image_alone_and_clips_to_it():
    image = np.full((80, 100, 3), 7, dtype=np.uint8)
    huge = np.array([0, 0, 0, 3, 3, 3.0])
    picture = draw_boxes_in_view(image, CAMERA, np.eye(4), [huge, huge * 0.5], labels=["a", "b"])
    assert (image == 7).all()
    assert picture.size == (100, 80)


def test_labels_and_default_colours_belong_to_boxes():
    boxes = [np.array([x, 0, 5, 0.5, 0.5, 0.5]) for x in (-1.0, 1.0)]
    picture = draw_boxes_in_view(BLACK, CAMERA, np.eye(4), boxes, labels=["", "right"])
    left, right = (_pixels(picture, colour) for colour in PALETTE[:2])
    assert left[:, 0].max() < 50 < right[:, 0].min()
    assert len(right) > len(left)  # the label's ground


@pytest.mark.parametrize(("what", "values"), [("colours", [(1, 2, 3)] * 2), ("labels", ["a", "b"])])
def test_counts_must_agree(what, values):
    with pytest.raises(ValueError, match=f"1 boxes but 2 {what}"):
        draw_boxes_in_view(BLACK, CAMERA, np.eye(4), [np.ones(6)], **{what: values})


def test_the_image_must_be_the_intrinsics_own():
    with pytest.raises(ValueError, match=r"100x80, but its intrinsics speak of 50x40; resize"):
        draw_boxes_in_view(BLACK, CAMERA.resized(50, 40), np.eye(4), [])


def test_depth_colours_fall_in_lightness_and_mark_invalid():
    depth = np.linspace(0.01, 4.0, 64, dtype=np.float32).reshape(1, -1)
    depth[0, 10] = 0
    picture = colour_depth(depth, furthest=4.0).astype(float)
    assert (picture[0, 10] == 128).all()
    lightness = np.delete(picture[0] @ [0.299, 0.587, 0.114], 10)
    assert (np.diff(lightness) < 0).all()


def _view(size: int = 40) -> BirdsEyeView:
    """4 m x 4 m around the origin; the left half seen and green, the right half void."""
    void = np.zeros((size, size), dtype=bool)
    void[:, size // 2 :] = True
    image = np.zeros((size, size, 3), dtype=np.uint8)
    image[~void] = (0, 90, 0)
    return BirdsEyeView(image=image, void=void, origin=(-2.0, 2.0), metres_per_pixel=4.0 / size)


def test_birdseye_boxes_lie_where_the_aligned_frame_says(make_scene):
    lamp = SceneObject(id=1, label="lamp", box=np.array([-1.0, 1.0, 0.5, 1.0, 0.5, 1.0]))
    scene = make_scene(birdseye=_view(), objects=(lamp,))
    picture = draw_birdseye(scene, scale=2, labels=False, camera_path=False)
    assert picture.size == (80, 80)
    box = _pixels(picture, PALETTE[0])
    # x from -1.5 to -0.5 m: columns (x + 2) * 20; y from 0.75 to 1.25 m: rows (2 - y) * 20.
    np.testing.assert_allclose(box.min(axis=0), [10, 15], atol=1)
    np.testing.assert_allclose(box.max(axis=0), [30, 25], atol=1)
    pixels = np.asarray(picture)
    assert (pixels[2, 2] == (0, 90, 0)).all()
    assert (pixels[2, 70] > 200).all()  # void is light, not black


def test_birdseye_camera_path(make_scene):
    scene = make_scene(birdseye=_view(200), objects=(), T_aligned_world=np.eye(4))
    frames = tuple(
        dataclasses.replace(frame, T_world_camera=np.block([[np.eye(3), np.c_[[x, 0.5, 1.0]]], [0, 0, 0, 1]]))
        for frame, x in zip(scene.frames, (-1.5, -1.0, -0.5), strict=True)
    )
    scene = scene.replace(frames=frames)
    path = _pixels(draw_birdseye(scene, scale=1), PALETTE[0])
    np.testing.assert_allclose(path.min(axis=0), [25 - 5, 75 - 5], atol=1)  # the start's dot has 5 px radius
    np.testing.assert_allclose(path.max(axis=0), [75 + 5, 75 + 5], atol=1)
    assert len(_pixels(draw_birdseye(scene, scale=1, camera_path=False), PALETTE[0])) == 0


def test_birdseye_must_exist(make_scene):
    with pytest.raises(SceneError, match=r"'little' has no bird's-eye view; render it first"):
        draw_birdseye(make_scene())


def test_contact_sheet_shows_every_view_and_its_depth(make_scene):
    scene = make_scene(frames=5, width=60, height=40)
    sheet = contact_sheet(scene, columns=3, tile=60)
    pixels = np.asarray(sheet)
    for index, frame in enumerate(scene.frames):
        x, y = 6 + (index % 3) * 66, 30 + (index // 3) * (18 + 80 + 6) + 18
        np.testing.assert_array_equal(pixels[y : y + 40, x : x + 60], frame.colour())
        depth = pixels[y + 40 : y + 80, x : x + 60]
        np.testing.assert_array_equal((depth == 128).all(axis=-1), frame.depth() == 0)


def test_contact_sheet_without_depth_and_with_many_frames(make_scene):
    scene = make_scene(frames=30)
    bare = scene.replace(frames=tuple(dataclasses.replace(frame, load_depth=None) for frame in scene.frames))
    assert (
        contact_sheet(bare, max_frames=4, columns=2, tile=24).size[1]
        < contact_sheet(scene, max_frames=4, columns=2, tile=24).size[1]
    )
    with pytest.raises(SceneError, match="no frames"):
        contact_sheet(scene.replace(frames=(), objects=()))
