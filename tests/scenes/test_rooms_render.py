"""Pictures against exact geometry: planes, boxes, brute-force rays, and bytes."""

import pickle
import sys

import numpy as np
import pytest

from stereopsis.errors import MissingExtraError
from stereopsis.geometry.raycast import embree_scene
from stereopsis.scenes.rooms import (
    RoomConfig,
    make_layout,
    make_room,
    make_room_mesh,
    render_room,
)
from stereopsis.scenes.rooms.render import camera_rays
from stereopsis.scenes.rooms.walk import make_walk

SEEDS = range(8)


@pytest.fixture(scope="module")
def rooms():
    return [render_room(seed) for seed in SEEDS]


def _world_points(frame) -> np.ndarray:
    """[height, width, 3] by the definition of the pinhole camera, independent of the renderer's rays."""
    k, depth = frame.intrinsics, frame.depth().astype(np.float64)
    u, v = np.meshgrid(np.arange(k.width) + 0.5, np.arange(k.height) + 0.5)
    camera = np.stack([(u - k.cx) / k.fx * depth, (v - k.cy) / k.fy * depth, depth, np.ones_like(depth)], axis=-1)
    return (camera @ frame.T_world_camera.T)[..., :3]


def test_the_same_seed_gives_the_same_bytes():
    first, second, other = render_room(3), render_room(3), render_room(4)
    for a, b, c in zip(first.scene.frames, second.scene.frames, other.scene.frames, strict=True):
        assert a.colour().tobytes() == b.colour().tobytes() != c.colour().tobytes()
        assert a.depth().tobytes() == b.depth().tobytes()
        assert a.T_world_camera.tobytes() == b.T_world_camera.tobytes()
    assert first.instances.tobytes() == second.instances.tobytes()
    for a, b in zip(first.scene.objects, second.scene.objects, strict=True):
        assert (a.id, a.label, a.attributes, a.visible_pixels) == (
            b.id,
            b.label,
            b.attributes,
            b.visible_pixels,
        )
        assert a.box.tobytes() == b.box.tobytes()
    for a, b in zip(first.scene.proposals, second.scene.proposals, strict=True):
        assert (a.box.tobytes(), a.score, a.label) == (b.box.tobytes(), b.score, b.label)


def test_frames_have_the_promised_types_and_no_holes(rooms):
    for seed, room in zip(SEEDS, rooms, strict=True):
        assert room.scene.id == f"room-{seed:08d}"
        assert len(room.scene.frames) == 8
        for frame in room.scene.frames:
            assert frame.colour().shape == (96, 96, 3)
            assert frame.colour().dtype == np.uint8
            assert frame.colour().max(axis=2).min() > 0, "pure black"
            assert frame.depth().dtype == np.float32
            assert frame.depth().min() > 0.1, "a ray slipped out of the room, or the camera touches something"
        assert room.instances.dtype == np.uint16
    np.testing.assert_array_equal(rooms[0].scene.T_aligned_world, np.eye(4))


def test_unprojected_object_pixels_lie_in_that_objects_box_and_reach_its_faces(rooms):
    for room in rooms:
        everything = (*room.scene.objects, *room.unlisted)
        for view, frame in enumerate(room.scene.frames):
            points = _world_points(frame)
            for item in everything:
                mine = points[room.instances[view] == item.id]
                outside = np.abs(mine - item.box[:3]) - item.box[3:] / 2
                assert outside.size == 0 or outside.max() < 1e-4


def test_shell_pixels_lie_on_the_six_planes_of_the_room(rooms):
    """Depth against the analytic distance of floor, ceiling and walls."""
    for room in rooms:
        size = np.array(room.scene.provenance["room_size"])
        for view, frame in enumerate(room.scene.frames):
            shell = _world_points(frame)[room.instances[view] == 0]
            off = np.minimum(np.abs(shell), np.abs(shell - size)).min(axis=1)
            assert off.max() < 2e-5
            assert (shell > -1e-4).all()
            assert (shell < size + 1e-4).all()


def test_floor_depth_matches_the_closed_form(rooms):
    """A ray to the floor meets it where z-depth = camera height / downward part of the ray."""
    frame, view = rooms[0].scene.frames[0], rooms[0].instances[0]
    k, pose = frame.intrinsics, frame.T_world_camera
    on_floor = (view == 0) & (np.abs(_world_points(frame)[..., 2]) < 1e-4)
    rows, columns = np.nonzero(on_floor)
    assert len(rows) > 200
    ray = np.stack([(columns + 0.5 - k.cx) / k.fx, (rows + 0.5 - k.cy) / k.fy, np.ones(len(rows))])
    expected = pose[2, 3] / -(pose[2, :3] @ ray)
    np.testing.assert_allclose(frame.depth()[on_floor], expected, rtol=1e-5)


def test_first_hits_agree_with_brute_force_ray_triangle_intersection():
    layout, config = make_layout(5), RoomConfig(views=2, width=12, height=12)
    origins, directions = camera_rays(make_walk(layout, config))
    mesh = make_room_mesh(5)
    triangles = mesh.triangles.astype(np.float64)
    a, ab, ac = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    hits = embree_scene(mesh.triangles).run(origins, directions, output=True)
    rays = zip(origins.astype(np.float64), directions.astype(np.float64), strict=True)
    for index, (origin, direction) in enumerate(rays):
        p = np.cross(direction, ac)
        determinant = (ab * p).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = ((origin - a) * p).sum(axis=1) / determinant
            q = np.cross(origin - a, ab)
            v = (q @ direction) / determinant
            t = (q * ac).sum(axis=1) / determinant
        inside = (u >= -1e-7) & (v >= -1e-7) & (u + v <= 1 + 1e-7) & (t > 1e-6)
        assert hits["tfar"][index] == pytest.approx(t[inside].min(), rel=1e-4)


def test_boxes_are_tight_and_objects_match_the_layout(rooms):
    for seed, room in zip(SEEDS, rooms, strict=True):
        mesh = make_room_mesh(seed)
        wanted = {}
        for index, item in enumerate(make_layout(seed).objects, start=1):
            corners = mesh.triangles[mesh.objects == index].reshape(-1, 3).astype(np.float64)
            low, high = corners.min(axis=0), corners.max(axis=0)
            wanted[tuple(np.concatenate([(low + high) / 2, high - low]))] = item
        everything = (*room.scene.objects, *room.unlisted)
        assert len(everything) == len(wanted)
        for item in everything:
            source = wanted[tuple(item.box)]
            assert (item.label, item.attributes["colour"]) == (source.category.name, source.colour)
            assert item.attributes["yaw"] == source.yaw


def test_every_listed_object_is_visible_and_counted_exactly(rooms):
    for room in rooms:
        assert [o.id for o in room.scene.objects] == list(range(1, len(room.scene.objects) + 1))
        assert len(room.scene.objects) >= 4
        for item in (*room.scene.objects, *room.unlisted):
            recount = tuple(int((view == item.id).sum()) for view in room.instances)
            assert item.visible_pixels == recount
            assert (max(recount) >= 12) == (item in room.scene.objects)
        for item in room.scene.objects:
            below = item.attributes["supported_by"]
            if below is not None:
                host = room.scene.object(below)
                top, bottom = host.box[2] + host.box[5] / 2, item.box[2] - item.box[5] / 2
                assert bottom <= top + 1e-5


def test_most_of_the_room_is_photographed():
    shares = []
    for seed in range(20, 32):
        room = render_room(seed, RoomConfig(width=48, height=48))
        shares.append(len(room.scene.objects) / (len(room.scene.objects) + len(room.unlisted)))
    assert np.mean(shares) > 0.85


def test_main_colours_are_recognisable_in_the_pixels(rooms):
    """Most pixels of a plain object are nearest to its own named colour (chance: one in nine)."""
    from stereopsis.scenes.rooms.paint import COLOURS, PALETTE

    palette = np.array([PALETTE[name][0] for name in COLOURS])
    right = total = 0
    for room in rooms:
        for item in room.scene.objects:
            view = int(np.argmax(item.visible_pixels))
            pixels = room.scene.frames[view].colour()[room.instances[view] == item.id] / 255.0
            if item.attributes["material"] == "plain" and len(pixels) > 60:
                votes = np.linalg.norm(pixels[:, None] - palette[None], axis=2).argmin(axis=1)
                right += COLOURS[np.bincount(votes).argmax()] == item.attributes["colour"]
                total += 1
    assert total >= 15
    assert right / total > 0.75


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return np.abs(a[:3] - b[:3]).max() < 0.2 and np.abs(np.log(a[3:] / b[3:])).max() < 0.36


def test_proposals_are_noisy_incomplete_and_partly_wrong():
    matched, objects, false, shift, scores = 0, 0, 0, [], ([], [])
    for seed in range(60):
        scene = make_room(seed, RoomConfig(views=4, width=32, height=32))
        objects += len(scene.objects)
        assert list(scene.proposals) == sorted(scene.proposals, key=lambda p: -p.score)
        free = list(scene.objects)
        for proposal in scene.proposals:
            assert (proposal.box[3:] > 0).all()
            near = [o for o in free if o.label == proposal.label and _close(o.box, proposal.box)]
            if near:
                best = min(near, key=lambda o: np.linalg.norm(o.box[:3] - proposal.box[:3]))
                free.remove(best)
                matched += 1
                shift.append(proposal.box[:3] - best.box[:3])
                scores[0].append(proposal.score)
            else:
                false += 1
                scores[1].append(proposal.score)
    assert 0.92 < matched / objects < 0.98
    assert 1.5 < false / 60 < 2.5
    assert np.std(shift) == pytest.approx(0.04, rel=0.15)
    assert np.mean(scores[0]) > np.mean(scores[1]) + 0.15


def test_scenes_survive_pickling(rooms):
    copy = pickle.loads(pickle.dumps(rooms[0].scene))
    np.testing.assert_array_equal(copy.frames[2].colour(), rooms[0].scene.frames[2].colour())


def test_rectangular_images_and_other_lenses():
    room = render_room(1, RoomConfig(views=3, width=64, height=40, horizontal_fov_degrees=60.0))
    frame = room.scene.frames[0]
    assert frame.depth().shape == (40, 64)
    assert frame.intrinsics.fx == pytest.approx(32 / np.tan(np.radians(30)))
    assert frame.intrinsics.fx == frame.intrinsics.fy


def test_without_embreex_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "embreex", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stereopsis\[rooms\]'"):
        make_room(0)
