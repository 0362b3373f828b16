import copy
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image
from video3dllm_folder import (
    COLOUR_K,
    DEPTH_K,
    LISTED,
    LOST,
    NAMES,
    A,
    alignment,
    infos,
    pose,
    record,
    save_matrix,
    write_pickle,
)

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics, transform, unproject
from stereopsis.scenes import open_scene, read_scene, verify_scene, write_scene
from stereopsis.scenes.alignment import has_alignment
from stereopsis.scenes.formats import detect_format
from stereopsis.scenes.readers.embodiedscan import find_info, info_files
from stereopsis.scenes.readers.posed_images import data_root, is_posed_images, read_axis_alignment, read_posed_images


@pytest.fixture
def folder(root):
    return root / "scannet" / "posed_images" / A


@pytest.fixture
def bare(folder):
    """The scene where nothing but frames is on disk."""
    shutil.rmtree(folder.parents[2] / "embodiedscan")
    for suffix in ("txt", "png", "jpg"):
        (folder / f"{LOST}.{suffix}").unlink()
    return folder


def test_a_scene_by_hand(root, folder):
    scene = read_posed_images(folder)
    assert scene.id == A
    assert tuple(frame.name for frame in scene.frames) == LISTED
    frame = scene.frames[1]
    assert frame.intrinsics == Intrinsics(fx=30.0, fy=30.0, cx=16.0, cy=12.0, width=32, height=24)
    assert frame.depth_intrinsics == Intrinsics(fx=15.0, fy=15.5, cx=8.0, cy=6.0, width=16, height=12)
    np.testing.assert_allclose(frame.T_world_camera, pose(1), atol=1e-6)  # the files have six decimals
    np.testing.assert_array_equal(scene.T_aligned_world, alignment())
    np.testing.assert_allclose(scene.T_aligned_camera(frame)[:3, 3], [0.1, 0.0, 2.0], atol=2e-6)
    assert abs(frame.colour().mean() - 40) < 1
    np.testing.assert_array_equal(frame.depth(), np.full((12, 16), 2.0, np.float32))
    source = str(root / "embodiedscan" / "embodiedscan_infos_train.pkl")
    assert scene.provenance == {
        "format": "posed_images",
        "path": str(folder),
        "infos": source,
        "skipped": {},
        "alignment": {"method": "given", "source": source},
    }


def test_depth_lands_on_the_floor_of_the_aligned_frame(folder):
    scene = read_posed_images(folder)
    for frame in scene.frames:
        points = unproject(frame.depth(), frame.depth_intrinsics, frame.T_world_camera).points
        height = transform(scene.T_aligned_world, points)[..., 2]
        np.testing.assert_allclose(height, 0.0, atol=1e-5)


def test_detected_opened_and_stored(folder, tmp_path):
    assert detect_format(folder) == "posed_images"
    scene = verify_scene(open_scene(folder))
    again = read_scene(write_scene(scene, tmp_path / "stored"))
    assert [frame.name for frame in again.frames] == list(LISTED)
    np.testing.assert_array_equal(again.frames[2].depth(), scene.frames[2].depth())
    np.testing.assert_array_equal(again.frames[2].T_world_camera, scene.frames[2].T_world_camera)


def test_loaders_can_be_pickled(folder):
    frame = read_posed_images(folder).frames[0]
    loaded = pickle.loads(pickle.dumps(frame))
    np.testing.assert_array_equal(loaded.colour(), frame.colour())


def test_detection_is_not_too_eager(tmp_path, make_capture, folder):
    holiday = tmp_path / "holiday"
    holiday.mkdir()
    (holiday / "00001.jpg").write_bytes(b"")
    assert not is_posed_images(holiday)
    assert not is_posed_images(make_capture(frames=1))
    assert not is_posed_images(tmp_path / "nowhere")
    assert is_posed_images(folder)


def test_lost_tracking_is_a_bad_frame_that_the_record_leaves_out(folder):
    assert LOST not in [frame.name for frame in read_posed_images(folder).frames]
    with pytest.raises(FrameError, match=rf"{LOST}\.txt.*NaN or inf"):
        read_posed_images(folder, frames="present")
    scene = read_posed_images(folder, frames="present", on_bad_frame="skip")
    assert [frame.name for frame in scene.frames] == list(LISTED)
    assert list(scene.provenance["skipped"]) == [LOST]


def test_without_the_records_the_scan_s_own_file_aligns(bare):
    scan = bare.parents[1] / "scans" / A
    scan.mkdir(parents=True)
    numbers = " ".join(f"{value:.6f}" for value in alignment(45.0).ravel())
    (scan / f"{A}.txt").write_text(f"appVersionId = 21\naxisAlignment = {numbers} \ncolorHeight = 968\n")
    scene = read_posed_images(bare)
    np.testing.assert_allclose(scene.T_aligned_world, alignment(45.0), atol=1e-6)
    assert scene.provenance["alignment"]["source"].endswith(f"{A}.txt")
    assert scene.provenance["infos"] is None


def test_without_anything_the_scene_stays_unaligned_and_says_so(bare):
    scene = read_posed_images(bare)
    assert [frame.name for frame in scene.frames] == list(LISTED)
    np.testing.assert_array_equal(scene.T_aligned_world, np.eye(4))
    assert "alignment" not in scene.provenance
    assert not has_alignment(scene)
    assert scene.frames[0].intrinsics == Intrinsics.from_matrix(COLOUR_K, 32, 24)
    assert scene.frames[0].depth_intrinsics == Intrinsics.from_matrix(DEPTH_K, 16, 12)


def test_first_release_of_scannet_has_no_alignment(tmp_path):
    (tmp_path / "a.txt").write_text("colorHeight = 968\n")
    assert read_axis_alignment(tmp_path / "a.txt") is None
    for line in ("axisAlignment = 1 2 3", "axisAlignment = " + "nan " * 16, "axisAlignment = " + "2 " * 16):
        (tmp_path / "a.txt").write_text(line)
        with pytest.raises(SceneError, match=r"a\.txt: unusable axisAlignment"):
            read_axis_alignment(tmp_path / "a.txt")


def test_no_depth_at_all_is_a_scene_without_depth(folder):
    for name in NAMES:
        (folder / f"{name}.png").unlink()
    scene = read_posed_images(folder)
    assert all(frame.load_depth is None and frame.depth_intrinsics is None for frame in scene.frames)
    assert len(verify_scene(scene).frames) == len(LISTED)


def test_pose_from_the_record_where_the_file_is_absent(folder):
    (folder / "00010.txt").unlink()
    scene = read_posed_images(folder)
    np.testing.assert_allclose(scene.frames[1].T_world_camera, pose(1), atol=1e-12)
    assert scene.provenance["poses_from_infos"] == 1


def test_the_data_root_is_found_above_through_links_or_given(root, folder, tmp_path):
    assert data_root(folder) == root
    away = tmp_path / "disk" / A
    shutil.copytree(folder, away)
    assert data_root(away) is None
    assert not has_alignment(read_posed_images(away, frames="present", on_bad_frame="skip"))
    assert has_alignment(read_posed_images(away, root=root))
    shutil.rmtree(folder)
    os.symlink(away, folder)
    assert data_root(folder) == root
    assert read_posed_images(folder).id == A


def test_records_in_other_places_and_forms(root):
    content = infos(A)
    content["data_list"][1]["cam2img"] = COLOUR_K[:3, :3].tolist()
    shutil.rmtree(root / "embodiedscan")
    write_pickle(root / "metadata" / "embodiedscan" / "embodiedscan_infos_train_full.pkl", content["data_list"])
    info = find_info(root, A)
    np.testing.assert_array_equal(info.colour_matrix, COLOUR_K[:3, :3])
    assert info.names == LISTED
    assert find_info(root, "scene0707_00") is None


def test_a_changed_record_file_is_read_again(root):
    file = root / "embodiedscan" / "embodiedscan_infos_train.pkl"
    assert find_info(root, A).T_aligned_world[0, 3] == 1.0
    content = infos(A)
    content["data_list"][1]["axis_align_matrix"][0, 3] = 5.0
    write_pickle(file, content)
    os.utime(file, ns=(1, 1))
    assert find_info(root, A).T_aligned_world[0, 3] == 5.0
    assert [path.name.split("_")[-1] for path in info_files(root)] == ["train.pkl", "val.pkl", "test.pkl"]


class _Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_hostile_record_file_runs_nothing(root, folder, tmp_path):
    content = infos(A)
    content["data_list"][1]["instances"] = [_Trap(tmp_path / "sprung")]
    write_pickle(root / "embodiedscan" / "embodiedscan_infos_train.pkl", content)
    with pytest.raises(SceneError, match=r"infos_train\.pkl: refused: it names '(posix|nt)\.mkdir'"):
        open_scene(folder)
    assert not (tmp_path / "sprung").exists()


def _spoil(change):
    """Rewrite the training records after a change of scene A's entry or of the whole."""

    def spoil(folder):
        content = copy.deepcopy(infos(A))
        change(content)
        write_pickle(folder.parents[2] / "embodiedscan" / "embodiedscan_infos_train.pkl", content)

    return spoil


def _set(key, value):
    return _spoil(lambda content: content["data_list"][1].__setitem__(key, value))


def _frame_file(name, content):
    def spoil(folder):
        if content is None:
            (folder / name).unlink()
        elif isinstance(content, np.ndarray):
            Image.fromarray(content).save(folder / name)
        else:
            (folder / name).write_text(content)

    return spoil


def _without_intrinsics(kind, file):
    def spoil(folder):
        _spoil(lambda content: content["data_list"][1].pop(kind))(folder)
        (folder / file).unlink()

    return spoil


def _twice(content):
    content["data_list"].append({**record(A), "axis_align_matrix": np.eye(4)})


def _same_frame_twice(content):
    content["data_list"][1]["images"].append(content["data_list"][1]["images"][0])


# What is done to the scene, and what the message must say.
FAULTS = {
    "pose of NaN": (_frame_file("00010.txt", "nan " * 4 + "\n" + "0 0 0 1\n" * 3), r"00010\.txt: unusable pose: .*NaN"),
    "pose of words": (_frame_file("00010.txt", "lost"), r"00010\.txt: unreadable pose .*expected 4x4.*skip"),
    "short pose": (_frame_file("00010.txt", "1 0 0 0\n0 1 0 0\n"), r"00010\.txt: found 2 rows of \[4\] numbers"),
    "mirrored pose": (
        _frame_file("00010.txt", "1 0 0 0\n0 1 0 0\n0 0 -1 0\n0 0 0 1\n"),
        r"00010\.txt.*determinant -1",
    ),
    "missing colour": (
        _frame_file("00010.jpg", None),
        r"00010\.jpg: does not exist, but .*train\.pkl lists.*'present'",
    ),
    "missing depth": (_frame_file("00010.png", None), r"00010\.png: the depth image does not exist.*skip"),
    "8-bit depth": (_frame_file("00010.png", np.ones((12, 16), np.uint8)), r"00010\.png: this is not a depth image"),
    "grey colour": (_frame_file("00010.jpg", np.ones((24, 32), np.uint8)), r"00010\.jpg: found JPEG L 32x24"),
    "text as colour": (_frame_file("00010.jpg", "hello"), r"00010\.jpg: the colour image cannot be decoded"),
    "other size": (
        _frame_file("00010.png", np.ones((24, 32), np.uint16)),
        r"32x24 and 32x24, expected 32x24 and 16x12 as most",
    ),
    "no colour intrinsics": (
        _without_intrinsics("cam2img", "intrinsic.txt"),
        r"intrinsic\.txt: does not exist.*cam2img",
    ),
    "no depth intrinsics": (
        _without_intrinsics("depth_cam2img", "depth_intrinsic.txt"),
        r"depth_intrinsic\.txt: does not exist.*colour is 32x24 and depth 16x12",
    ),
    "intrinsics of a larger image": (_set("cam2img", COLOUR_K * 20), "found skew or a wrong row"),
    "principal point outside": (
        _set("depth_cam2img", COLOUR_K + np.eye(4, k=2)),
        r"implausible intrinsics.*cx=17.0.*inside the 16x12",
    ),
    "intrinsics of words": (_set("cam2img", "wide"), "'cam2img' is 'wide', expected a matrix"),
    "alignment that scales": (_set("axis_align_matrix", np.eye(4) * 2), "axis_align_matrix: .*expected a rigid 4x4"),
    "alignment of NaN": (_set("axis_align_matrix", np.full((4, 4), np.nan)), "axis_align_matrix: .*NaN"),
    "alignment of another shape": (
        _set("axis_align_matrix", np.eye(3)),
        "'axis_align_matrix' is of shape .3, 3., expected a matrix",
    ),
    "no images": (_set("images", []), "'images' is not a list of entries"),
    "images without path": (_set("images", [{"cam2global": np.eye(4)}]), "'images' is not a list of entries"),
    "one frame twice": (_spoil(_same_frame_twice), "names frame '00000' more than once"),
    "one scene twice": (_spoil(_twice), f"scene '{A}' has 2 entries that differ"),
    "no list": (_spoil(lambda content: content.pop("data_list")), r"found a dictionary of \['metainfo'\]"),
    "entry without a name": (_set("sample_idx", None), "entry 1 of 'data_list' has no 'sample_idx'"),
    "truncated records": (
        lambda folder: (file := folder.parents[2] / "embodiedscan" / "embodiedscan_infos_train.pkl").write_bytes(
            file.read_bytes()[:-100]
        ),
        r"infos_train\.pkl: refused: it ends in the middle",
    ),
}
OF_ONE_FRAME = tuple(FAULTS)[: tuple(FAULTS).index("other size") + 1]


@pytest.mark.parametrize("case", FAULTS)
def test_faults_name_the_file_and_the_remedy(folder, case):
    spoil, expected = FAULTS[case]
    spoil(folder)
    kind = FrameError if case in OF_ONE_FRAME else SceneError
    with pytest.raises(kind, match=expected):
        read_posed_images(folder)


@pytest.mark.parametrize("case", OF_ONE_FRAME)
def test_bad_frames_can_be_left_out(folder, case):
    FAULTS[case][0](folder)
    scene = read_posed_images(folder, on_bad_frame="skip")
    assert [frame.name for frame in scene.frames] == [name for name in LISTED if name != "00010"]
    assert list(scene.provenance["skipped"]) == ["00010"]


def test_too_many_bad_frames_stop(folder):
    for name in ("00010", "00020"):
        (folder / f"{name}.jpg").unlink()
    with pytest.raises(SceneError, match="2 of 5 frames are unusable"):
        read_posed_images(folder, on_bad_frame="skip")
    assert len(read_posed_images(folder, on_bad_frame="skip", max_bad_fraction=0.5).frames) == 3


def test_wrong_folders(folder, tmp_path):
    with pytest.raises(SceneError, match="no such folder; expected one that holds NNNNN"):
        read_posed_images(tmp_path / "nowhere")
    with pytest.raises(SceneError, match=f"found no frames.*open one of its scenes instead: {A}, scene0011_00"):
        read_posed_images(folder.parent)


def test_a_real_scannet_scene(shared_data, tmp_path):
    source = shared_data / "scannet" / A
    if not source.is_dir():
        pytest.skip(f"no ScanNet scene at {source}")
    folder = tmp_path / "data" / "scannet" / "posed_images" / A
    shutil.copytree(source / "posed_images", folder)
    shutil.copy(source / "intrinsic_color.txt", folder)
    align = np.loadtxt(source / "axis_align_matrix.txt")
    images = [{"img_path": f"scannet/posed_images/{A}/{name}.jpg"} for name in ("00000", "00011", "00102")]
    entry = {"sample_idx": f"scannet/{A}", "axis_align_matrix": align, "images": images}
    write_pickle(tmp_path / "data" / "embodiedscan" / "embodiedscan_infos_train.pkl", {"data_list": [entry]})
    scene = verify_scene(open_scene(folder))
    assert len(scene.frames) == 3
    assert scene.frames[0].intrinsics.width == 1296
    np.testing.assert_allclose(scene.frames[0].intrinsics.fx, 1169.621094)
    for frame in scene.frames:
        assert 0.5 < scene.T_aligned_camera(frame)[2, 3] < 2.2, "cameras are held at a person's height"
        assert scene.T_aligned_camera(frame)[2, 1] < 0, "and upright: their y axis points down"


def test_save_matrix_writes_what_the_exporter_writes(tmp_path):
    save_matrix(tmp_path / "m.txt", np.full((4, 4), -np.inf))
    assert (tmp_path / "m.txt").read_text().split() == ["-inf"] * 16
