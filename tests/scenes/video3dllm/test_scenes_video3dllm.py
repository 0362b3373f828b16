import json
import os
import shutil

import numpy as np
import pytest
import torch
from video3dllm_folder import BOXES_A, BOXES_B, LISTED, NAMES, PROPOSALS_B, A, B, alignment, processed, write_json

from stereopsis.benchmarks.files.processed import ProcessedFiles
from stereopsis.errors import SceneError
from stereopsis.scenes import read_scene, write_scene
from stereopsis.scenes.readers.video3dllm import FrameSelection, Video3DLLMData


@pytest.fixture
def data(root):
    return Video3DLLMData(root)


def said(data, scene_id, *names):
    """What some processed files say about a scene."""
    return ProcessedFiles(data.root).of_scene(names, scene_id)


def test_the_project_s_folder_will_do(root):
    assert Video3DLLMData(root.parent).root == Video3DLLMData(str(root)).root == root
    with pytest.raises(SceneError, match="holds neither scannet/posed_images nor data/scannet/posed_images"):
        Video3DLLMData(root / "scannet")


def test_listing(data, root):
    (root / "scannet" / "posed_images" / "notes").mkdir()
    assert data.scene_ids() == (A, B)
    assert ProcessedFiles(root).names() == tuple(sorted(processed()))


def test_a_training_scene(data, root):
    scene = data.scene(A, records=said(data, A, "sqa3d_train", "scan2cap_train", "scanrefer_train", "scanqa_val"))
    assert tuple(frame.name for frame in scene.frames) == LISTED
    np.testing.assert_array_equal(scene.T_aligned_world, alignment())
    assert [item.id for item in scene.objects] == [0, 1, 2]
    np.testing.assert_array_equal([item.box for item in scene.objects], BOXES_A)
    assert scene.proposals == (), "the objects serve, as in the systems' own training"
    assert [(item.task, item.id) for item in scene.annotations] == [
        ("sqa3d", "220602000002"),
        ("sqa3d", "220602000002#2"),
        ("sqa3d", "220602000002#3"),
        ("scan2cap", f"{A}|1|4"),
        ("scanrefer", f"{A}|1|4"),
    ]
    assert scene.provenance["objects_from"] == str(root / "metadata" / "scannet_train_gt_box.json")
    assert scene.object(1).label == ""


def test_a_validation_scene(data):
    scene = data.scene(B, records=said(data, B, "multi3drefer_val", "scan2cap_val"))
    assert [item.id for item in scene.objects] == [0, 2, 5], "ScanNet's ids, from the point cloud's file"
    np.testing.assert_allclose([item.box for item in scene.objects], list(BOXES_B.values()), atol=1e-6)
    assert scene.object(0).label == "chair"
    assert scene.object(5).label == ""
    np.testing.assert_array_equal([item.box for item in scene.proposals], PROPOSALS_B)
    assert {item.score for item in scene.proposals} == {1.0}
    for annotation in scene.annotations:
        assert all(scene.object(object_id) for object_id in annotation.object_ids)


def test_boxes_from_the_annotations_where_nothing_else_has_them(data, root):
    shutil.rmtree(root / "scannet" / "pcd_with_object_aabbs")
    assert data.objects(B) == ()
    scene = data.scene(B, records=said(data, B, "multi3drefer_val", "scan2cap_val"))
    assert {item.id: item.box.tolist() for item in scene.objects} == BOXES_B


def test_a_scene_keeps_everything_when_stored(data, tmp_path):
    scene = data.scene(B, records=said(data, B, "multi3drefer_val", "scan2cap_val", "scanqa_val"))
    again = read_scene(write_scene(scene, tmp_path / "stored"))
    assert again.annotations == scene.annotations
    np.testing.assert_array_equal([item.box for item in again.objects], [item.box for item in scene.objects])
    assert again.provenance == scene.provenance


def test_selected_frames(data):
    chosen = data.selected_frames(A)
    assert chosen == FrameSelection(names=("00040", "00000", "00020"), new_voxels=(50, 30, 15), total_voxels=100)
    assert chosen.take(32) == ("00000", "00020", "00040")
    assert chosen.take(2) == ("00000", "00040")
    assert chosen.take(32, coverage=0.5) == ("00040",)
    assert chosen.take(32, coverage=0.8) == ("00000", "00040")
    assert chosen.take(32, coverage=0.99) == ("00000", "00020", "00040")


def test_birdseye_image(data):
    image = data.birdseye_image(B)
    assert image.shape == (48, 64, 3)
    assert np.abs(image.astype(int) - 90).max() <= 2
    with pytest.raises(SceneError, match=rf"{A}/view_0\.jpg: does not exist.*with_birdseye"):
        data.birdseye_image(A)


def test_features_go_by_frame_names_and_come_one_view_at_a_time(data, root):
    features = data.features(A)
    # 4 of 6 colour images, evenly: 0, 5/3, 10/3, 5, cut. The record lists other frames: position is no key.
    assert features.names == ("00000", "00010", "00030", "00050")
    assert features.names != tuple(LISTED[index] for index in (0, 1, 2, 4))
    assert (features.tokens, features.channels, features.special_tokens, features.grid) == (1036, 2, 5, (28, 37))
    stored = np.load(root / "scannet" / "posed_images_3d_feature_vggt" / A / "vggt.npz")["feature"]
    views = list(features.views())
    assert [name for name, _ in views] == list(features.names)
    for index, (_, view) in enumerate(views):
        np.testing.assert_array_equal(view, stored[0, index, 5:])


def test_half_precision_uncompressed_square_features(data, root):
    path = root / "scannet" / "posed_images_3d_feature_dinov2" / A / "dinov2.npz"
    path.parent.mkdir(parents=True)
    values = np.arange(2 * 37 * 37 * 3, dtype=np.float16).reshape(2, 37 * 37, 3)
    np.savez(path, feature=values)
    features = data.features(A, teacher="dinov2")
    assert features.grid == (37, 37)
    assert features.dtype == np.float16
    np.testing.assert_array_equal(np.stack([view for _, view in features.views()]), values)
    np.savez(path, feature=values[:, :100])
    assert data.features(A, teacher="dinov2").grid is None


def test_official_size_has_the_grid_that_vggt_has():
    from stereopsis.scenes.readers.view_features import sampled_names, vggt_grid

    assert vggt_grid(1036, 1296, 968) == (28, 37), "ScanNet: 518x392 pixels"
    assert vggt_grid(1369, 1296, 968) == (37, 37), "padded"
    assert vggt_grid(1369, 480, 640) == (37, 37), "upright images are cut"
    assert vggt_grid(1000, 1296, 968) is None
    assert sampled_names([str(n) for n in range(100)], 4) == ("0", "33", "66", "99")


def _text(relative, change):
    """Change a JSON file's content."""

    def spoil(root):
        path = root / relative
        content = json.loads(path.read_text())
        write_json(path, change(content) or content)

    return spoil


def _bytes(relative, content):
    def spoil(root):
        (root / relative).parent.mkdir(parents=True, exist_ok=True)
        (root / relative).write_bytes(content)

    return spoil


def _features(**arrays):
    return lambda root: np.savez(root / "scannet" / "posed_images_3d_feature_vggt" / A / "vggt.npz", **arrays)


def _cloud(**changes):
    def spoil(root):
        content = {"aabb_obj_ids": np.arange(1), "aabb_corner_xyz": np.zeros((1, 8, 3)), **changes}
        torch.save(content, root / "scannet" / "pcd_with_object_aabbs" / "val" / f"{B}.pth")

    return spoil


def _unalign(root):
    shutil.rmtree(root / "embodiedscan")
    for scene in (A, B):
        for suffix in ("txt", "jpg", "png"):
            (root / "scannet" / "posed_images" / scene / f"{NAMES[3]}.{suffix}").unlink()


GT = "metadata/scannet_train_gt_box.json"
PREDICTED = "metadata/scannet_val_pred_box.json"
CHOSEN = "metadata/scannet_select_frames.json"
CAPTIONS = "processed/scan2cap_train_llava_style.json"
VGGT = f"scannet/posed_images_3d_feature_vggt/{A}/vggt.npz"

# What is done to the folder, what is asked for, and what the message must say.
FAULTS = {
    "unknown scene": (None, lambda d: d.scene("scene0000_0"), r"no such scene \(did you mean 'scene0000_00'\?\)"),
    "path for a scene": (None, lambda d: d.scene("../posed_images"), r"no such scene \(there are 2"),
    "unknown file": (
        None,
        lambda d: ProcessedFiles(d.root).records("scanqa_vall"),
        r"scanqa_vall_llava_style\.json: .*'scanqa_val'",
    ),
    "file named twice": (
        None,
        lambda d: d.scene(A, records=said(d, A, "sqa3d_train", "sqa3d_train")),
        "two annotations have the id",
    ),
    "two files of one name": (
        _bytes("processed/old/scanqa_val_llava_style.json", b"[]"),
        lambda d: ProcessedFiles(d.root).records("scanqa_val"),
        "several files are named 'scanqa_val'",
    ),
    "boxes without alignment": (_unalign, lambda d: d.scene(A), r"no alignment is known.*axisAlignment.*boxes=False"),
    "truncated boxes": (_bytes(GT, b'{"scannet/'), lambda d: d.scene(A), r"gt_box\.json: cannot be read as JSON"),
    "boxes as a list": (_bytes(GT, b"[]"), lambda d: d.scene(A), r"gt_box\.json: found a list, expected a dict"),
    "box of five": (
        _text(GT, lambda c: c[f"scannet/{A}"].__setitem__(0, [0, 0, 0, 1, 1])),
        lambda d: d.scene(A),
        rf"gt_box\.json: 'scannet/{A}': unusable boxes",
    ),
    "flat boxes": (
        _text(GT, lambda c: {f"scannet/{A}": [0, 0, 0, 1, 1, 1]}),
        lambda d: d.scene(A),
        r"unusable boxes \(shape \(6,\)\)",
    ),
    "box of NaN": (
        _text(GT, lambda c: c[f"scannet/{A}"][0].__setitem__(0, float("nan"))),
        lambda d: d.objects(A),
        "unusable boxes .*NaN or inf",
    ),
    "corners as a box": (
        _text(PREDICTED, lambda c: c[f"scannet/{B}"][0].__setitem__(3, -1.0)),
        lambda d: d.proposals(B),
        r"pred_box\.json: .*must not be negative",
    ),
    "no proposal": (
        _text(PREDICTED, lambda c: {f"scannet/{B}": []}),
        lambda d: d.scene(B),
        "is empty; without proposals the true boxes would be taken",
    ),
    "annotation with another box": (
        _text(CAPTIONS, lambda c: c[0]["gt_box"].__setitem__(0, 9.0)),
        lambda d: d.scene(A, records=said(d, A, "scan2cap_train")),
        rf"gives object 1 of {A} the box \[9.0, .*different versions",
    ),
    "no such selection": (None, lambda d: d.selected_frames(B), f"has 0 entries of 'scannet/{B}', expected one"),
    "selection twice": (_text(CHOSEN, lambda c: c * 2), lambda d: d.selected_frames(A), "has 2 entries"),
    "selection without files": (
        _text(CHOSEN, lambda c: c[0].pop("frame_files") and None),
        lambda d: d.selected_frames(A),
        "expected 'frame_files'",
    ),
    "selection with a frame twice": (
        _text(CHOSEN, lambda c: c[0]["frame_files"].__setitem__(0, "data/00000.jpg")),
        lambda d: d.selected_frames(A),
        "a list of different",
    ),
    "no selection file": (
        lambda r: (r / CHOSEN).unlink(),
        lambda d: d.selected_frames(A),
        "frames.json: does not exist",
    ),
    "old torch file": (
        _bytes(f"scannet/pcd_with_object_aabbs/val/{B}.pth", b"x"),
        lambda d: d.objects(B),
        "not a .pth",
    ),
    "fewer corners": (
        _cloud(aabb_corner_xyz=np.zeros((2, 8, 3))),
        lambda d: d.objects(B),
        r"expected 'aabb_obj_ids' \[n\]",
    ),
    "ids of text": (_cloud(aabb_obj_ids=np.array(["1"])), lambda d: d.objects(B), r"expected 'aabb_obj_ids' \[n\]"),
    "labels of another form": (
        _text(f"scannet/scans/{B}/{B}.aggregation.json", lambda c: {"segGroups": [{"label": "x"}]}),
        lambda d: d.objects(B),
        "'segGroups' lacks objectId or label",
    ),
    "no features": (None, lambda d: d.features(B), r"vggt\.npz: does not exist; extract the features first"),
    "features of another name": (_features(arr_0=np.zeros(3)), lambda d: d.features(A), "holds no array 'feature'"),
    "features of objects": (
        _features(feature=np.array([{}], dtype=object)),
        lambda d: d.features(A),
        "holds Python objects, which are not loaded",
    ),
    "features of whole numbers": (
        _features(feature=np.zeros((1, 2, 3, 4), int)),
        lambda d: d.features(A),
        "'feature' is int64",
    ),
    "features without views": (_features(feature=np.zeros((3, 4))), lambda d: d.features(A), r"is float64 \[3, 4\]"),
    "only special tokens": (
        _features(feature=np.zeros((1, 2, 5, 4)), ps_idx=5),
        lambda d: d.features(A),
        "with ps_idx 5",
    ),
    "features by column": (
        _features(feature=np.asfortranarray(np.zeros((2, 3, 4)))),
        lambda d: d.features(A),
        "numbers in Fortran order",
    ),
    "no archive": (_bytes(VGGT, b"hello"), lambda d: d.features(A), r"vggt\.npz: cannot be read as \.npz"),
    "damaged features": (
        lambda r: (r / VGGT).write_bytes((d := (r / VGGT).read_bytes())[:3000] + bytes(60) + d[3060:]),
        lambda d: list(d.features(A).views()),
        r"vggt\.npz: the features end early or are damaged",
    ),
    "damaged picture": (
        _bytes(f"scannet/scans/{B}/view_0.jpg", b"hello"),
        lambda d: d.birdseye_image(B),
        r"view_0\.jpg: the colour image cannot be decoded",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_name_the_path_and_the_remedy(root, case):
    spoil, ask, expected = FAULTS[case]
    if spoil is not None:
        spoil(root)
    with pytest.raises(SceneError, match=expected) as error:
        ask(Video3DLLMData(root))
    if case != "file named twice":
        assert str(root) in str(error.value)


def test_without_boxes_an_unaligned_scene_opens(root):
    _unalign(root)
    scene = Video3DLLMData(root).scene(A, boxes=False, records=said(Video3DLLMData(root), A, "sqa3d_train"))
    assert len(scene.annotations) == 3
    assert scene.objects == ()


def test_a_scene_without_any_boxes_opens(root):
    shutil.rmtree(root / "metadata")
    scene = Video3DLLMData(root).scene(A)
    assert scene.objects == scene.proposals == ()


def test_test_scenes_have_point_clouds_without_objects(root):
    _cloud(aabb_obj_ids=None, aabb_corner_xyz=None)(root)
    assert Video3DLLMData(root).objects(B) == ()


class _Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_hostile_point_cloud_runs_nothing(root, tmp_path):
    _cloud(aabb_obj_ids=_Trap(tmp_path / "sprung"))(root)
    with pytest.raises(SceneError, match=rf"{B}\.pth: refused: it names '(posix|nt)\.mkdir'"):
        Video3DLLMData(root).scene(B)
    assert not (tmp_path / "sprung").exists()
