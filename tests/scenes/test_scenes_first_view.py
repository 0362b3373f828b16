"""The frame of the first view: walls stay along the axes, and everything goes along."""

import dataclasses
import math

import numpy as np
import pytest

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import unproject
from stereopsis.scenes.alignment import with_birdseye
from stereopsis.scenes.first_view import from_first_view, moved_box, quarter_turn, quarters_to_ahead
from stereopsis.scenes.rooms import make_room
from stereopsis.scenes.rooms.language import annotate


@pytest.fixture(scope="module")
def room():
    made = make_room(5)
    return with_birdseye(made.replace(annotations=annotate(made, 5)), size=48, fill_radius=0.1)


def test_quarter_turns_by_hand():
    assert quarter_turn(1)[:2, :2].tolist() == [[0, -1], [1, 0]]
    box = moved_box(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), quarter_turn(1))
    assert box.tolist() == [-2.0, 1.0, 3.0, 5.0, 4.0, 6.0]
    for degrees, quarters in ((90, 0), (50, 0), (130, 0), (0, 1), (-44, 1), (180, 3), (-90, 2)):
        camera = np.eye(4)
        camera[:2, 2] = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        assert quarters_to_ahead(camera) == quarters, degrees
    down = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2], [0, 0, 0, 1]])  # the picture's upper side is +y
    assert quarters_to_ahead(down) == 0


@pytest.mark.parametrize("seed", range(6))
def test_the_first_view_stands_at_the_origin_and_looks_ahead(seed):
    scene = from_first_view(make_room(seed))
    camera = scene.T_aligned_camera(scene.frames[0])
    assert np.abs(camera[:2, 3]).max() < 1e-9
    assert camera[1, 2] >= abs(camera[0, 2]) - 1e-9


def test_pixels_and_boxes_move_together(room):
    moved = from_first_view(room)
    T = np.array(moved.provenance["first_view"]["T"])
    for frame in (0, 5):
        depth, camera = room.frames[frame].depth(), room.frames[frame].intrinsics
        before = unproject(depth, camera, room.T_aligned_camera(room.frames[frame])).points
        after = unproject(depth, camera, moved.T_aligned_camera(moved.frames[frame])).points
        np.testing.assert_allclose(after, before @ T[:3, :3].T + T[:3, 3], atol=1e-5, rtol=0)
    for old, new in zip((*room.objects, *room.proposals), (*moved.objects, *moved.proposals), strict=True):
        corners = [old.box[:3] + sign * old.box[3:] / 2 for sign in (-1, 1)]
        turned = np.array([T[:3, :3] @ corner + T[:3, 3] for corner in corners])
        np.testing.assert_allclose(new.box[:3] - new.box[3:] / 2, turned.min(0), atol=1e-9)
        np.testing.assert_allclose(new.box[:3] + new.box[3:] / 2, turned.max(0), atol=1e-9)


def test_agents_keep_what_they_stand_next_to(room):
    moved = from_first_view(room)
    centres = np.array([o.box[:2] for o in room.objects]), np.array([o.box[:2] for o in moved.objects])
    asked = [(a, b) for a, b in zip(room.annotations, moved.annotations, strict=True) if a.position is not None]
    assert asked
    for old, new in asked:
        bearings = []
        for annotation, places in ((old, centres[0]), (new, centres[1])):
            offset = places - np.array(annotation.position[:2])
            turned = np.arctan2(offset[:, 1], offset[:, 0]) - annotation.yaw
            bearings.append(np.stack([np.cos(turned), np.sin(turned), np.hypot(*offset.T)]))
        np.testing.assert_allclose(*bearings, atol=1e-6)
        assert dataclasses.replace(new, position=old.position, yaw=old.yaw) == old


def test_the_view_from_above_turns_with_the_room(room):
    moved = from_first_view(room)
    T, old, new = np.array(moved.provenance["first_view"]["T"]), room.birdseye, moved.birdseye
    rows, cols = np.nonzero(~old.void)
    chosen = slice(None, None, 37)
    for row, col in zip(rows[chosen], cols[chosen], strict=True):
        place = np.array(
            [old.origin[0] + (col + 0.5) * old.metres_per_pixel, old.origin[1] - (row + 0.5) * old.metres_per_pixel]
        )
        x, y = T[:2, :2] @ place + T[:2, 3]
        there = int((new.origin[1] - y) / new.metres_per_pixel), int((x - new.origin[0]) / new.metres_per_pixel)
        assert (new.image[there] == old.image[row, col]).all()
        assert not new.void[there]


def test_twice_is_once(room):
    once = from_first_view(room)
    twice = from_first_view(once)
    np.testing.assert_allclose(twice.T_aligned_world, once.T_aligned_world, atol=1e-12)


def test_a_scene_without_views_is_refused(room):
    with pytest.raises(SceneError, match="no first view"):
        from_first_view(room.replace(frames=()))
