import json

import numpy as np
import pytest
from scannet_files import ALIGNMENT, GROUPS, SCAN, SEGMENTS, WALL, write_ply

from stereopsis.errors import SceneError
from stereopsis.scenes.readers.scannet import NO_OBJECT, read_scan_instances, read_scannet
from stereopsis.scenes.readers.scannet.annotations import (
    Instance,
    LabelMapRow,
    make_instances,
    read_aggregation,
    read_label_map,
    read_segments,
)

LABELS = (
    "id\traw_category\tcategory\tnyu40id\tnyu40class\n1\twall\twall\t1\twall\n2\ttall thing\tlamp stand\t\totherprop\n"
)


def _instances(*items: tuple[int, str, set[int]]) -> list[Instance]:
    return [Instance(id=number, label=label, segments=frozenset(segments)) for number, label, segments in items]


def test_boxes_and_vertices_by_hand(make_scan, tmp_path):
    folder = make_scan()
    (tmp_path / "scannetv2-labels.combined.tsv").write_text(LABELS)
    found = read_scan_instances(folder)
    thing, wall = found.objects
    assert (thing.id, thing.label, wall.id, wall.label) == (3, "tall thing", 0, "wall")
    # x 1..1.5, y 0..2, z 0..3; aligned x = y - 5, y = 3 - x, z = z + 0.25.
    np.testing.assert_allclose(thing.box, [-4.0, 1.75, 1.75, 2.0, 0.5, 3.0])
    np.testing.assert_allclose(wall.box, [-5.0, 3.0, 2.25, 18.0, 18.0, 0.0])
    assert found.vertex_objects.tolist() == [0, 0, 0, 0, 3, 3, 3, 3]
    assert thing.attributes == {"category": "lamp stand", "nyu40": "otherprop", "nyu40_id": 0}
    assert wall.attributes == {"category": "wall", "nyu40": "wall", "nyu40_id": 1}
    assert (found.skipped, found.contested_vertices, found.unknown_labels) == ({}, 0, {})


def test_boxes_do_not_depend_on_the_order_of_vertices():
    items = _instances((3, "thing", {7, 8}), (0, "wall", {5, 9}))
    order = np.random.default_rng(0).permutation(len(WALL))
    one = make_instances(WALL, np.array(SEGMENTS), items, ALIGNMENT)
    two = make_instances(WALL[order], np.array(SEGMENTS)[order], items, ALIGNMENT)
    for a, b in zip(one.objects, two.objects, strict=True):
        np.testing.assert_array_equal(a.box, b.box)
    np.testing.assert_array_equal(one.vertex_objects[order], two.vertex_objects)


def test_vertices_of_no_object_and_of_two():
    items = _instances((1, "left", {5, 9}), (2, "right", {9, 7}))
    found = make_instances(WALL, np.array(SEGMENTS), items, np.eye(4))
    assert found.vertex_objects.tolist() == [1, 1, 1, 2, 2, 2, NO_OBJECT, NO_OBJECT]
    assert found.contested_vertices == 1
    np.testing.assert_allclose(found.objects[0].box, [0, 0, 2, 18, 18, 0])  # keeps the vertex that both claim


def test_objects_listed_twice_or_empty_are_skipped_and_counted():
    items = _instances((0, "wall", {5}), (1, "thing", {7}), (2, "wall", {5}), (1, "thing", {7}), (4, "ghost", set()))
    found = make_instances(WALL, np.array(SEGMENTS), items, np.eye(4))
    assert [item.id for item in found.objects] == [0, 1]
    assert found.skipped == {
        "object 2 (wall), entry 2": "the same label and segments as object 0",
        "object 1 (thing), entry 3": "the same label and segments as object 1",
        "object 4 (ghost), entry 4": "it has no segments, so no surface",
    }


def test_labels_that_the_map_does_not_know_are_counted():
    items = _instances((0, "wall", {5}), (1, "gizmo", {7}), (2, "gizmo", {8}))
    known = {"wall": LabelMapRow(name="wall", nyu40_id=1, nyu40="wall")}
    found = make_instances(WALL, np.array(SEGMENTS), items, np.eye(4), label_map=known)
    assert found.unknown_labels == {"gizmo": 2}
    assert found.objects[1].attributes == {}


def _json(name, content):
    return lambda folder: (folder / f"{SCAN}{name}").write_text(json.dumps(content))


def _text(name, content):
    return lambda folder: (folder / f"{SCAN}{name}").write_text(content)


def _bytes(name, content):
    return lambda folder: (folder / f"{SCAN}{name}").write_bytes(content)


def _without(name):
    return lambda folder: (folder / f"{SCAN}{name}").unlink()


def _group(**changes):
    return _json(".aggregation.json", {"segGroups": [{**GROUPS[0], **changes}]})


SEGS, AGGREGATION, MESH = "_vh_clean_2.0.010000.segs.json", ".aggregation.json", "_vh_clean_2.ply"
MESH_HEADER = "ply\nformat binary_little_endian 1.0\nelement vertex {}\n" + "".join(
    f"property float {axis}\n" for axis in "xyz"
)

# What is done to the folder, and what the message must say.
FAULTS = {
    "no segments": (_without(SEGS), f"lists objects, but {SCAN}{SEGS} is missing.*objects=False"),
    "no mesh": (_without(MESH), f"lists objects, but {SCAN}{MESH} is missing"),
    "segments of another mesh": (_json(SEGS, {"segIndices": SEGMENTS[:-1]}), "7 segment entries for 8 mesh vertices"),
    "segments in words": (_json(SEGS, {"segIndices": ["five"]}), r"field 'segIndices\.0'.*found five"),
    "fractional segments": (_json(SEGS, {"segIndices": [0.5] * 8}), r"segIndices\.0'.*integer"),
    "negative segments": (_json(SEGS, {"segIndices": [-1] * 8}), r"segIndices\.0'.*greater than or equal to 0"),
    "endless segment": (_json(SEGS, {"segIndices": [10**30] * 8}), r"segIndices\.0'"),
    "a list for segments": (_json(SEGS, SEGMENTS), "holds no 'segIndices'"),
    "truncated segments": (_text(SEGS, '{"segIndices": [5, 5'), "cannot be read as JSON.*restore"),
    "deep JSON": (_text(SEGS, "[" * 200_000), "cannot be read as JSON"),
    "binary segments": (_bytes(SEGS, b"\xff\xfe\x00"), "cannot be read as JSON"),
    "truncated aggregation": (_text(AGGREGATION, '{"segGroups": [{"objectId": 1'), "cannot be read as JSON"),
    "no groups": (_json(AGGREGATION, {"sceneId": SCAN}), "holds no 'segGroups'"),
    "a group without id": (
        _json(AGGREGATION, {"segGroups": [{"segments": [5], "label": "x"}]}),
        r"segGroups\.0\.objectId'.*required",
    ),
    "a negative id": (_group(objectId=-3), r"segGroups\.0\.objectId'.*greater"),
    "a label of number": (_group(label=5), r"segGroups\.0\.label'.*string"),
    "unknown segments": (
        _group(segments=[7, 1234, 99]),
        "object 3 .tall thing. names 2 segments.*first: 99.*same release",
    ),
    "two objects of one id": (
        _json(AGGREGATION, {"segGroups": [GROUPS[0], {**GROUPS[1], "objectId": 3}]}),
        "two different objects of id 3 .tall thing, wall.",
    ),
    "truncated mesh": (_text(MESH, MESH_HEADER.format(8) + "end_header\nabc"), "cannot be read as a mesh"),
    "endless mesh": (_text(MESH, MESH_HEADER.format(10**15) + "end_header\n"), "cannot be read as a mesh"),
    "mesh without end": (_text(MESH, MESH_HEADER.format(8)), "cannot be read as a mesh"),
    "no mesh at all": (_bytes(MESH, b"\x00\x01\x02"), "cannot be read as a mesh"),
    "mesh of nothing": (_text(MESH, MESH_HEADER.format(0) + "end_header\n"), "holds no triangles"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_annotations_say_what_is_wrong(make_scan, fault):
    spoil, message = FAULTS[fault]
    folder = make_scan()
    spoil(folder)
    with pytest.raises(SceneError, match=message) as error:
        read_scannet(folder)
    assert str(folder) in str(error.value)
    assert read_scannet(folder, objects=False).objects == ()


def test_mesh_with_vertices_that_are_no_numbers(make_scan):
    folder = make_scan()
    write_ply(folder / f"{SCAN}{MESH}", np.where(np.arange(24).reshape(8, 3) == 4, np.nan, WALL), np.array([[0, 1, 2]]))
    with pytest.raises(SceneError, match=r"1 of 8 vertices are NaN or inf"):
        read_scannet(folder)
    for triangle, message in (
        ([0, 1, -1], r"triangles name vertices -1 to 1, but there are 8"),
        ([0, 1, 8], "index 8"),
    ):
        write_ply(folder / f"{SCAN}{MESH}", WALL, np.array([triangle]))
        with pytest.raises(SceneError, match=message):
            read_scannet(folder)


def test_a_scan_without_annotations(make_scan):
    folder = make_scan()
    (folder / f"{SCAN}{AGGREGATION}").unlink()
    assert read_scannet(folder).objects == ()
    with pytest.raises(SceneError, match=r"holds no scene9999_00.aggregation.json"):
        read_scan_instances(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,raw_category\n1,wall\n", "lacks the columns raw_category, category, nyu40id, nyu40class"),
        (LABELS.replace("\t1\twall\n", "\tone\twall\n"), "cannot be read as a label map.*'one'"),
        (b"raw_category\xff", "cannot be read as a label map"),
    ],
)
def test_a_wrong_label_map(tmp_path, text, message):
    path = tmp_path / "labels.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SceneError, match=message):
        read_label_map(path)


def test_no_label_map(tmp_path):
    with pytest.raises(SceneError, match=r"none.tsv: cannot be read as a label map"):
        read_label_map(tmp_path / "none.tsv")


def test_the_real_label_map(shared_data):
    labels = read_label_map(shared_data / "scannet_meta" / "scannetv2-labels.combined.tsv")
    assert len(labels) == 607
    assert labels["trash can"] == LabelMapRow(name="trash can", nyu40_id=39, nyu40="otherfurniture")
    assert {category.nyu40_id for category in labels.values()} <= set(range(41))


def test_a_real_scan(shared_data):
    """Real annotations; boxes against those of another code base, made from a later release of the same scan."""
    folder = shared_data / "scannet" / "scene0000_00"
    stem = folder / "scene0000_00"
    segments = read_segments(stem.with_name("scene0000_00_vh_clean_2.0.010000.segs.json"))
    assert len(segments) == 81369
    listed = read_aggregation(stem.with_name("scene0000_00.aggregation.json"))
    labels = shared_data / "scannet_meta" / "scannetv2-labels.combined.tsv"
    found = read_scan_instances(folder, label_map=labels)
    assert [item.id for item in found.objects] == [item.id for item in listed] == list(range(55))
    assert found.skipped == {}
    assert found.contested_vertices == 0
    # An independent count: vertices whose segment an object lists.
    sizes = {item.id: sum(np.count_nonzero(segments == segment) for segment in item.segments) for item in listed[:5]}
    assert {number: np.count_nonzero(found.vertex_objects == number) for number in sizes} == sizes
    assert found.unknown_labels == {"trashcan": 3, "dishrack": 1}

    known = json.loads((folder / "boxes_scannet18.json").read_text())
    same = {
        ("window", "window"), ("table", "counter"), ("counter", "counter"), ("curtain", "curtain"), ("desk", "desk"),
        ("cabinet", "cabinet"), ("sink", "sink"), ("garbagebin", "trashcan"), ("sofa", "couch"), ("table", "table"),
        ("refrigerator", "refrigerator"), ("toilet", "toilet"), ("bed", "bed"), ("door", "door"),
    }  # fmt: skip
    matched, exact = [], []
    for name, box in zip(known["names"], np.array(known["boxes_aligned_cxcyczdxdydz"]), strict=True):
        away = {item.id: np.linalg.norm(item.box[:3] - box[:3]) for item in found.objects if (name, item.label) in same}
        nearest = min(away, key=away.__getitem__)
        if away[nearest] < 0.05:
            matched.append(nearest)
            ours = next(item.box for item in found.objects if item.id == nearest)
            exact.append(np.abs(ours - box).max() < 1e-3)
    # The rest was annotated anew between the releases: other segments, other boxes.
    assert len(matched) == len(set(matched)) >= 16
    assert sum(exact) >= 8
