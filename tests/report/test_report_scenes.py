"""Questions, grounding and the 3D figure: what is shown must be what was evaluated."""

import base64

import numpy as np
import pytest
from scipy.spatial import cKDTree

from stereopsis.benchmarks.scoring.boxes import matched_f1
from stereopsis.geometry.boxes import iou
from stereopsis.geometry.camera import project
from stereopsis.report.grounding import best_views, chosen_boxes, expressions, shown_area
from stereopsis.report.questions import pick, question_scenes
from stereopsis.report.read import read_subject
from stereopsis.report.rooms import enlarged, map_picture, scene_folders, spread
from stereopsis.report.scene3d import MOST_POINTS, scene_figure
from stereopsis.report.style import TARGET_HEX
from stereopsis.scenes.alignment import scene_points


@pytest.fixture(scope="module")
def subject(comparison):
    return read_subject(comparison)


@pytest.fixture(scope="module")
def folders(subject):
    return scene_folders(subject.scenes)


def test_spread():
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(2, 4) == [0, 1]
    assert spread(0, 4) == []


def test_picked_questions_differ_in_type_as_far_as_they_can(subject):
    records = [r for r in subject.arms[1].evaluation.records if r.task == "scanqa"]
    types = {record.type for record in records}
    for turn in range(4):
        chosen = pick(records, 3, turn)
        assert len({record.type for record in chosen}) == 3
        assert chosen == pick(list(records), 3, turn)
    every = [record.type for turn in range(len(types)) for record in pick(records, 3, turn)]
    assert set(every) == types
    assert len(pick(records, 10_000, 0)) == len(records)
    assert pick([], 3, 0) == []


def test_answers_are_those_of_the_records(subject, folders):
    scenes = question_scenes(subject, folders)
    assert [scene.scene_id for scene in scenes] == ["room-00000000", "room-00000001"]
    for scene in scenes:
        assert len(scene.views) == scene.view_count == 8
        assert len(scene.questions) == 10
        spoken = {r.text: r for r in subject.arms[2].evaluation.records if r.scene_id == scene.scene_id and r.text}
        for question in scene.questions:
            assert [answer.arm for answer in question.answers] == [0, 1, 2]
            if not question.caption:
                record = next(
                    r
                    for r in subject.arms[2].evaluation.records
                    if (r.scene_id, r.text, r.situation) == (scene.scene_id, question.text, question.situation)
                )
                if "em" in record.scores:  # numbers are right by degrees
                    assert question.answers[2].right == (record.scores["em"] == 1.0)
                assert question.answers[2].text == record.prediction
                assert question.truth == tuple(dict.fromkeys(record.answers))
        assert spoken


def test_situated_questions_are_on_the_map_and_others_are_not(subject, folders):
    for scene in question_scenes(subject, folders):
        for question in scene.questions:
            assert question.on_map == bool(question.situation)


def test_map_marks_the_agent(rooms):
    room = rooms[0]
    asked = next(a for a in room.annotations if a.position is not None)
    plain, marked = map_picture(room), map_picture(room, [(1, asked)])
    assert plain.uri != marked.uri
    assert map_picture(room.replace(birdseye=None)) is None


def test_questions_are_shown_without_scenes(subject):
    scenes = question_scenes(subject, {})
    assert all(scene.views == () and scene.map is None for scene in scenes)
    assert all(scene.questions for scene in scenes)


def test_choices_are_what_the_metric_scored(subject):
    checked = 0
    for record in subject.arms[1].evaluation.records:
        boxes = chosen_boxes(record) if record.task in ("scanrefer", "multi3drefer") else None
        if record.task == "scanrefer":
            assert (iou(boxes, record.targets)[0, 0] >= 0.25) == (record.scores["acc@0.25"] == 1.0)
        elif record.task == "multi3drefer":
            assert matched_f1(boxes, record.targets)[0] == pytest.approx(record.scores["f1@0.25"], abs=1e-6)
        checked += boxes is not None
    assert checked > 20


def test_expressions_come_from_different_kinds(subject, folders):
    shown = expressions(subject, folders)
    assert [item.task for item in shown] == ["ScanRefer", "Multi3DRefer", "ScanRefer"]
    assert len({item.text for item in shown}) == 3
    for item in shown:
        assert len(item.views) == 2
        assert [choice.arm for choice in item.choices] == [0, 1, 2]
        assert item.figure is not None


def test_best_view_shows_most_of_the_target(rooms, subject):
    by_id = {room.id: room for room in rooms}
    for record in subject.arms[1].evaluation.records:
        if record.task == "scanrefer":
            room = by_id[record.scene_id]
            seen = room.object(record.object_ids[0]).visible_pixels
            first, second = best_views(room, record, ())
            assert seen[first] == max(seen)
            assert second != first


def test_shown_area_counts_points_in_front_of_the_camera(rooms):
    room = rooms[0]
    box = room.objects[0].box
    areas = shown_area(room, box[None])
    for frame, area in zip(room.frames, areas, strict=True):
        seen = project(box[:3], frame.intrinsics, room.T_aligned_camera(frame))
        inside = seen.depth > 0.5 and bool((np.abs(seen.pixels - 48) < 40).all())
        assert 0 <= area <= 125
        assert not inside or area > 0


def test_enlarged_view_keeps_its_rays(rooms):
    frame = rooms[0].frames[0]
    picture, large = enlarged(frame, 384)
    assert picture.size == (384, 384)
    point = frame.T_world_camera[:3, 3] + 2.0 * frame.T_world_camera[:3, 2] + 0.3 * frame.T_world_camera[:3, 0]
    small_pixel = project(point, frame.intrinsics, frame.T_world_camera).pixels
    large_pixel = project(point, large.intrinsics, large.T_world_camera).pixels
    np.testing.assert_allclose(large_pixel, 4 * small_pixel)


def unpacked(figure) -> tuple[np.ndarray, np.ndarray]:
    points = np.frombuffer(base64.b64decode(figure.points), dtype="<i2").reshape(-1, 3) / 1000.0
    colours = np.frombuffer(base64.b64decode(figure.colours), dtype=np.uint8).reshape(-1, 3)
    return points + figure.origin, colours


def test_points_of_the_figure_lie_where_the_depth_says(rooms):
    room = rooms[0]
    figure = scene_figure(room, np.zeros((0, 6)), [])
    points, colours = unpacked(figure)
    assert len(points) == len(colours) == figure.count <= MOST_POINTS
    cloud = scene_points(room)
    distance, nearest = cKDTree(cloud.points).query(points)
    assert distance.max() < 1e-3  # millimetres were rounded
    # A pixel's colour goes with its point (points that coincide to a millimetre may swap).
    agree = (cloud.colours[nearest] == colours).all(axis=1)
    assert agree.mean() > 0.97
    assert points[:, 2].max() < room.provenance["room_size"][2]


def test_boxes_of_the_figure(rooms):
    box = np.array([1.0, 2.0, 0.5, 0.4, 0.6, 1.0])
    figure = scene_figure(rooms[0], box[None], [(1, "arm", box[None] + 0.1)])
    chosen, target = figure.boxes
    assert (chosen["name"], target["name"], target["colour"]) == ("arm", "target", TARGET_HEX)
    axes = [np.array([np.nan if v is None else v for v in axis]) for axis in target["line"]]
    lengths = np.sqrt(sum((axis[1::3] - axis[0::3]) ** 2 for axis in axes))
    np.testing.assert_allclose(np.sort(lengths), np.repeat([0.4, 0.6, 1.0], 4), atol=1e-9)
    assert all(np.isnan(axis[2::3]).all() for axis in axes)
    np.testing.assert_allclose([np.nanmin(axis) for axis in axes], box[:3] - box[3:] / 2)


def test_cameras_of_the_figure(rooms):
    cameras = scene_figure(rooms[0], np.zeros((0, 6)), []).cameras
    assert cameras["names"] == [frame.name for frame in rooms[0].frames]
    expected = [rooms[0].T_aligned_camera(frame)[:3, 3] for frame in rooms[0].frames]
    np.testing.assert_allclose(cameras["centres"], expected, atol=6e-4)


def test_a_scene_without_depth_has_no_figure(rooms):
    import dataclasses

    frames = tuple(dataclasses.replace(frame, load_depth=None) for frame in rooms[0].frames)
    assert scene_figure(rooms[0].replace(frames=frames), np.zeros((0, 6)), []) is None
