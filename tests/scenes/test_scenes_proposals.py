"""Candidate boxes: from ground truth, from detectors' files (and damaged ones), and from depth alone."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from scipy import sparse

from stereopsis.errors import SceneError
from stereopsis.scenes.detections import read_detections
from stereopsis.scenes.proposals import (
    geometric_proposals,
    ground_truth_proposals,
    proposal_recall,
    with_proposals,
)
from stereopsis.scenes.scene import Scene, SceneObject
from stereopsis.scenes.stored import read_scene, write_scene

VERTICES = np.array([[0, 0, 0], [1, 2, 3], [5, 5, 5], [6, 5, 5], [6, 7, 9]], dtype=np.float64)
MASKS = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
FIRST, SECOND = [0.5, 1, 1.5, 1, 2, 3], [5.5, 6, 7, 1, 2, 4]


def boxes_of(found) -> list[list[float]]:
    return [item.box.tolist() for item in found.proposals]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
@pytest.mark.parametrize("transposed", [False, True])
def test_masks_become_boxes_best_first(tmp_path, dtype, transposed):
    masks = (MASKS.T if transposed else MASKS).astype(dtype)
    path = tmp_path / "scene.npz"
    np.savez(path, masks=masks, scores=[0.2, 0.9, 0.5], labels=["chair", "bed", "lamp"])
    found = read_detections(path, "scene", vertices=VERTICES)
    assert boxes_of(found) == [SECOND, FIRST]
    assert [(p.score, p.label) for p in found.proposals] == [(0.9, "bed"), (0.2, "chair")]
    assert dict(found.skipped) == {"instance 2": "its mask holds no vertex"}


def test_masks_without_scores_keep_their_order(tmp_path):
    np.savez(tmp_path / "a.npz", masks=MASKS[:2])
    sparse.save_npz(tmp_path / "b.mask.npz", sparse.csr_matrix(MASKS[:2]))
    for name in ("a.npz", "b.mask.npz"):
        found = read_detections(tmp_path / name, "x", vertices=VERTICES)
        assert boxes_of(found) == [FIRST, SECOND]
        assert {p.score for p in found.proposals} == {1.0}
    assert boxes_of(read_detections(tmp_path / "a.npz", "x", vertices=VERTICES, max_instances=1)) == [FIRST]


def write_benchmark(folder, masks=MASKS, scores=("0.25", "0.75", "0.5")):
    (folder / "pred_mask").mkdir()
    lines = []
    for number, (mask, score) in enumerate(zip(masks, scores, strict=True)):
        (folder / "pred_mask" / f"{number}.txt").write_text("\n".join(str(value) for value in mask))
        lines.append(f"pred_mask/{number}.txt {number + 3} {score}")
    (folder / "scene.txt").write_text("\n".join(lines) + "\n")
    return folder / "scene.txt"


def test_the_scannet_benchmarks_files(tmp_path):
    found = read_detections(write_benchmark(tmp_path), "scene", vertices=VERTICES)
    assert boxes_of(found) == [SECOND, FIRST]
    assert [(p.score, p.label) for p in found.proposals] == [(0.75, "4"), (0.25, "3")]
    assert list(found.skipped) == ["instance 2"]


@pytest.mark.parametrize("key", ["scene0001_00", "scannet/scene0001_00"])
@pytest.mark.parametrize("asked", ["scene0001_00", "scannet/scene0001_00"])
def test_box_files(tmp_path, key, asked):
    path = tmp_path / "scannet_val_pred_box.json"
    path.write_text(json.dumps({key: [FIRST, SECOND], "scannet/scene0002_00": []}))
    assert boxes_of(read_detections(path, asked)) == [FIRST, SECOND]
    assert boxes_of(read_detections(path, "scene0002_00")) == []
    path.write_text(json.dumps([{"box": FIRST, "score": 0.1}, {"box": SECOND, "score": 0.8, "label": "bed"}]))
    found = read_detections(path, asked)
    assert [(p.score, p.label) for p in found.proposals] == [(0.8, "bed"), (0.1, "")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"scannet/scene0707_00": [FIRST]}, r"no boxes of scene 'scene0001_00' \(did you mean"),
        ({f"s{n}": [] for n in range(30)}, "among its 30 scenes"),
        ([FIRST[:5]], "box 0: found 5 values, expected six numbers"),
        ([FIRST, [1, 1, 1, 1, -0.2, 1]], r"box 1.*must not be negative"),
        ([[1, 1, 1, 1, float("nan"), 1]], "NaN or inf"),
        ([[1, 1, 1, 1, 10**400, 1]], "box 0|too large"),
        ([["1", 1, 1, 1, 1, 1]], "expected six numbers"),
        ([{"box": FIRST, "score": float("nan")}], "score: found nan, expected a finite number"),
        ([{"box": FIRST, "score": None}], "score: found None"),
        ([{"box": FIRST, "confidence": 1}], r"keys \['box', 'confidence'\]"),
        ([{"score": 1}], r"keys \['score'\]"),
        (7, "found a int, expected a list"),
    ],
)
def test_damaged_box_files(tmp_path, content, message):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SceneError, match=message):
        read_detections(path, "scene0001_00")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"masks": MASKS[:, :4]}, r"\[3, 4\], but the mesh has 5 vertices"),
        ({"masks": MASKS[0]}, r"\[5\]; expected \[instances, vertices\]"),
        ({"masks": MASKS * 0.5}, "of 0 and 1"),
        ({"masks": np.where(MASKS == 1, np.nan, 0)}, "of 0 and 1"),
        ({"masks": MASKS, "scores": [0.1, 0.2]}, r"'scores' is \[2\] for 3 masks"),
        ({"masks": MASKS, "scores": [0.1, np.nan, 0.2]}, "score 1: found nan"),
        ({"masks": MASKS, "labels": ["a"]}, r"'labels' is \[1\] for 3 masks"),
        ({"instances": MASKS}, "holds instances; expected 'masks'"),
        ({"masks": MASKS.astype(object)}, "without pickled objects"),
        ({"masks": MASKS, "labels": np.array(["a", None, "b"])}, "without pickled objects"),
    ],
)
def test_damaged_mask_files(tmp_path, arrays, message):
    path = tmp_path / "masks.npz"
    np.savez(path, **arrays)
    with pytest.raises(SceneError, match=message):
        read_detections(path, "x", vertices=VERTICES)


def test_truncated_and_foreign_files(tmp_path):
    path = tmp_path / "masks.npz"
    np.savez(path, masks=MASKS)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"not a zip file at all"):
        path.write_bytes(damaged)
        with pytest.raises(SceneError, match=r"cannot be read as a plain \.npz"):
            read_detections(path, "x", vertices=VERTICES)
    sparse.save_npz(path, sparse.csr_matrix(MASKS[:, :3]))
    with pytest.raises(SceneError, match=r"\[3, 3\], but the mesh has 5"):
        read_detections(path, "x", vertices=VERTICES)
    with pytest.raises(SceneError, match="pass the mesh's vertices"):
        read_detections(path, "x")
    with pytest.raises(SceneError, match="NaN or inf"):
        read_detections(path, "x", vertices=np.full((5, 3), np.nan))
    with pytest.raises(SceneError, match="no such file"):
        read_detections(tmp_path / "absent.json", "x")
    (tmp_path / "a.pkl").write_bytes(b"")
    with pytest.raises(SceneError, match=r"unknown kind of detector file '\.pkl'"):
        read_detections(tmp_path / "a.pkl", "x")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(SceneError, match="no JSON"):
        read_detections(tmp_path / "a.json", "x")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("pred_mask/0.txt", "1\n1\n0", "3 values for a mesh of 5 vertices"),
        ("pred_mask/0.txt", "1 1 0 0 2", "holds '2'"),
        ("scene.txt", "pred_mask/0.txt 3", "line 1: found 2 words"),
        ("scene.txt", "\npred_mask/0.txt 3 nan", "line 2: score: found 'nan'"),
        ("scene.txt", "pred_mask/9.txt 3 0.5", r"9\.txt: no such file"),
    ],
)
def test_damaged_benchmark_files(tmp_path, file, content, message):
    index = write_benchmark(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(SceneError, match=message):
        read_detections(index, "scene", vertices=VERTICES)


def test_recall_by_hand():
    truth = np.array([FIRST, SECOND, [20, 20, 20, 1, 1, 1]])
    half = np.array(FIRST) * np.array([1, 1, 0.5, 1, 1, 0.5])  # the lower half of the first
    assert proposal_recall(half[None], truth, 0.5).found == 1
    assert proposal_recall(half[None], truth, 0.51).found == 0
    both = proposal_recall(np.stack([half, np.array(SECOND)]), truth, 0.25)
    assert (both.found, both.total, both.share) == (2, 3, pytest.approx(2 / 3))
    assert proposal_recall(np.zeros((0, 6)), truth, 0.25).share == 0.0
    assert np.isnan(proposal_recall(truth, np.zeros((0, 6)), 0.25).share)


@pytest.fixture(scope="module")
def room() -> Scene:
    pytest.importorskip("embreex")
    from stereopsis.scenes.rooms import RoomConfig, make_room

    return make_room(5001, RoomConfig(views=12, width=96, height=96))


def test_ground_truth_is_every_object(room):
    proposals = ground_truth_proposals(room)
    assert [p.label for p in proposals] == [o.label for o in room.objects]
    truth = np.stack([o.box for o in room.objects])
    assert proposal_recall(np.stack([p.box for p in proposals]), truth, 0.99).share == 1.0


def test_geometry_finds_the_furniture_of_a_room_and_it_can_be_stored(room, tmp_path):
    found = geometric_proposals(room)
    flat = ("door", "window", "picture")
    truth = np.stack([o.box for o in room.objects if o.label not in flat])
    boxes = np.stack([p.box for p in found])
    assert proposal_recall(boxes, truth, 0.25).share >= 0.8
    assert proposal_recall(boxes, truth, 0.5).share >= 0.6
    assert all(0 < p.score <= 1 and p.label == "" for p in found)
    scene = with_proposals(room, found, "geometry")
    assert scene.provenance["proposals"] == {"source": "geometry", "count": len(found)}
    again = read_scene(write_scene(scene, tmp_path / "room"))
    np.testing.assert_array_equal(np.stack([p.box for p in again.proposals]), boxes)


def test_geometry_needs_an_upright_scene_with_depth(room):
    lying = room.replace(objects=(), proposals=())
    with pytest.raises(SceneError, match="is not aligned"):
        geometric_proposals(lying)
    blank = functools.partial(np.zeros, (96, 96), np.float32)
    dark = room.replace(frames=tuple(dataclasses.replace(frame, load_depth=blank) for frame in room.frames))
    with pytest.raises(SceneError, match="no depth pixel is valid"):
        geometric_proposals(dark)
    box = SceneObject(id=1, label="x", box=np.zeros(6))
    bare = Scene(id="flat", frames=(dataclasses.replace(room.frames[0], load_depth=None),), objects=(box,))
    with pytest.raises(SceneError, match="has depth"):
        geometric_proposals(bare)
