import contextlib
import dataclasses
import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.birdseye import BirdsEyeView
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes import Scene, open_scene, read_scene, stored, verify_scene, write_scene
from stereopsis.scenes.bad_frames import check_policy
from stereopsis.scenes.prepare import find_captures, prepare
from stereopsis.scenes.readers.seven_scenes import read_seven_scenes


def _birdseye(size: int = 12) -> BirdsEyeView:
    rng = np.random.default_rng(3)
    return BirdsEyeView(
        image=rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        void=rng.random((size, size)) < 0.5,
        origin=(-1.7, 2.0 / 3.0),
        metres_per_pixel=0.0117,
    )


def _assert_same(a: Scene, b: Scene) -> None:
    """Equal in every fact; colours exactly, too."""
    assert a.id == b.id
    np.testing.assert_array_equal(a.T_aligned_world, b.T_aligned_world)
    assert [frame.name for frame in a.frames] == [frame.name for frame in b.frames]
    for one, two in zip(a.frames, b.frames, strict=True):
        np.testing.assert_array_equal(one.T_world_camera, two.T_world_camera)
        assert one.intrinsics == two.intrinsics
        assert one.depth_intrinsics == two.depth_intrinsics
        np.testing.assert_array_equal(one.colour(), two.colour())
        np.testing.assert_array_equal(one.depth(), two.depth())
        assert one.depth().dtype == two.depth().dtype == np.float32
    for one, two in zip(a.objects, b.objects, strict=True):
        np.testing.assert_array_equal(one.box, two.box)
        assert dataclasses.replace(one, box=two.box).__dict__ == two.__dict__
    for one, two in zip(a.proposals, b.proposals, strict=True):
        np.testing.assert_array_equal(one.box, two.box)
        assert (one.score, one.label) == (two.score, two.label)
    assert a.annotations == b.annotations
    assert a.provenance == b.provenance


def test_round_trip_is_exact(tmp_path, make_scene):
    scene = make_scene(birdseye=_birdseye())
    folder = write_scene(scene, tmp_path / "deep" / "little")
    assert folder == tmp_path / "deep" / "little"
    back = read_scene(folder)
    _assert_same(scene, back)
    np.testing.assert_array_equal(back.birdseye.image, scene.birdseye.image)
    np.testing.assert_array_equal(back.birdseye.void, scene.birdseye.void)
    assert back.birdseye.origin == scene.birdseye.origin
    assert back.birdseye.metres_per_pixel == scene.birdseye.metres_per_pixel
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "annotations.json",
        "birdseye.png",
        "birdseye_void.png",
        "frames",
        "scene.json",
    ]
    assert [entry.name for entry in folder.parent.iterdir()] == ["little"]  # no temporary folder is left


def test_filled_pixels_of_the_view_from_above_are_kept(tmp_path, make_scene):
    view = _birdseye()
    filled = ~view.void & (np.random.default_rng(1).random(view.void.shape) < 0.3)
    scene = make_scene(birdseye=dataclasses.replace(view, filled=filled))
    folder = write_scene(scene, tmp_path / "little")
    np.testing.assert_array_equal(read_scene(folder).birdseye.filled, filled)
    np.testing.assert_array_equal(read_scene(folder).birdseye.measured, scene.birdseye.measured)
    assert read_scene(write_scene(make_scene(birdseye=view), tmp_path / "whole")).birdseye.filled is None
    (folder / "birdseye_filled.png").unlink()
    with pytest.raises(FrameError, match=r"birdseye_filled.png: the mask image does not exist"):
        read_scene(folder)


def test_a_scene_written_twice_is_the_same_bytes(tmp_path, make_scene):
    one, two = (write_scene(make_scene(), tmp_path / name) for name in ("one", "two"))
    again = write_scene(read_scene(one), tmp_path / "again")
    files = sorted(file.relative_to(one) for file in one.rglob("*") if file.is_file())
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes() == (again / file).read_bytes(), file


@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6),
    angle=st.floats(-180, 180),
    words=st.text(max_size=20),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
def test_numbers_and_words_survive_exactly(tmp_path, make_scene, values, angle, words):
    scene = make_scene(frames=1)
    turn = np.radians(angle)
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    pose[:3, 3] = values[:3]
    frame = dataclasses.replace(scene.frames[0], T_world_camera=pose)
    lamp = dataclasses.replace(scene.objects[0], box=np.array(values), label=words)
    scene = scene.replace(frames=(frame,), objects=(lamp,), provenance={"words": words}, T_aligned_world=pose)
    _assert_same(scene, read_scene(write_scene(scene, tmp_path / "scene", overwrite=True)))


def test_frames_are_read_lazily_and_can_be_sent_to_other_processes(tmp_path, make_scene):
    folder = write_scene(make_scene(), tmp_path / "scene")
    scene = pickle.loads(pickle.dumps(read_scene(folder)))
    (folder / "frames" / "view_001.png").write_bytes(b"no image")
    scene.frames[0].colour()
    with pytest.raises(FrameError, match=r"view_001\.png"):
        scene.frames[1].colour()


def test_colour_format(tmp_path, make_scene):
    files = {
        "small": write_scene(make_scene(frames=1, width=160, height=120), tmp_path / "small"),
        "large": write_scene(make_scene(frames=1, width=161, height=120), tmp_path / "large"),
        "png": write_scene(make_scene(frames=1, width=200), tmp_path / "png", colour_format="png"),
        "jpg": write_scene(make_scene(frames=1), tmp_path / "jpg", colour_format="jpg"),
    }
    suffixes = {
        name: {file.suffix for file in (folder / "frames").iterdir() if ".depth" not in file.name}
        for name, folder in files.items()
    }
    assert suffixes == {"small": {".png"}, "large": {".jpg"}, "png": {".png"}, "jpg": {".jpg"}}
    for folder in files.values():
        verify_scene(read_scene(folder))


def test_colour_without_depth_and_depth_of_another_size(tmp_path, make_scene):
    scene = make_scene()
    small = Intrinsics(fx=9.0, fy=9.0, cx=5.0, cy=4.0, width=10, height=8)
    frames = (
        dataclasses.replace(scene.frames[0], load_depth=None),
        dataclasses.replace(
            scene.frames[1],
            depth_intrinsics=small,
            load_depth=lambda: np.full((8, 10), 1.5, dtype=np.float32),
        ),
    )
    back = read_scene(write_scene(scene.replace(frames=frames, objects=()), tmp_path / "scene"))
    assert back.frames[0].depth() is None
    assert back.frames[1].depth_intrinsics == small
    np.testing.assert_array_equal(back.frames[1].depth(), np.full((8, 10), 1.5, dtype=np.float32))


def test_plain_values_of_numpy_are_stored(tmp_path, make_scene):
    scene = make_scene(provenance={"seed": np.int64(4), "share": np.float32(0.5), "at": Path("x"), "v": np.arange(2)})
    back = read_scene(write_scene(scene, tmp_path / "scene"))
    assert back.provenance == {"seed": 4, "share": 0.5, "at": "x", "v": [0, 1]}


def test_methods_of_scene(tmp_path, make_scene):
    scene = make_scene()
    _assert_same(scene, open_scene(write_scene(scene, tmp_path / "scene")))


# ---------------------------------------------------------------- what is refused when writing


def test_an_existing_scene_stays_unless_overwrite(tmp_path, make_scene):
    folder = write_scene(make_scene(), tmp_path / "scene")
    with pytest.raises(SceneError, match=r"already holds a scene.*overwrite=True") as error:
        write_scene(make_scene(id="other"), folder)
    assert str(folder) in str(error.value)
    assert read_scene(folder).id == "little"
    write_scene(make_scene(id="other", frames=2), folder, overwrite=True)
    assert read_scene(folder).id == "other"
    assert len(list((folder / "frames").iterdir())) == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["scene"]


def test_other_folders_are_never_replaced(tmp_path, make_scene):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for place in ("home", "file"):
        with pytest.raises(SceneError, match=rf"{place}.*never replaced.*another folder"):
            write_scene(make_scene(), tmp_path / place, overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert read_scene(write_scene(make_scene(), tmp_path / "empty")).id == "little"


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/b", "/etc/passwd", "", ".hidden", "..", "a\n", "a\x00b", "x" * 201, "字" * 67, " a", "a ", "a:b"],
)
def test_frame_names_that_cannot_be_files(tmp_path, make_scene, name):
    scene = make_scene(frames=1)
    scene = scene.replace(frames=(dataclasses.replace(scene.frames[0], name=name),))
    with pytest.raises(FrameError, match=r"cannot be a file name.*rename the frame"):
        write_scene(scene, tmp_path / "out" / "scene")
    assert not list((tmp_path / "out").iterdir())


def test_a_frame_cannot_take_the_name_of_a_depth_file(tmp_path, make_scene):
    scene = make_scene(frames=2)
    clash = dataclasses.replace(scene.frames[1], name="view_000.depth")
    with pytest.raises(FrameError, match=r"not ending in '\.depth'"):
        write_scene(scene.replace(frames=(scene.frames[0], clash)), tmp_path / "scene")


def test_repeated_frame_names(tmp_path, make_scene):
    scene = make_scene(frames=2)
    with pytest.raises(SceneError, match="two frames are named 'view_000'"):
        write_scene(scene.replace(frames=(scene.frames[0],) * 2, objects=()), tmp_path / "scene")


def _with_pose(scene: Scene, pose: np.ndarray) -> Scene:
    return scene.replace(frames=(dataclasses.replace(scene.frames[0], T_world_camera=pose), *scene.frames[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.replace(frames=()), "no frames"),
        (lambda s: s.replace(T_aligned_world=np.full((4, 4), np.nan)), "T_aligned_world"),
        (lambda s: s.replace(T_aligned_world=2 * np.eye(4)), "T_aligned_world"),
        (lambda s: _with_pose(s, np.full((4, 4), np.inf)), "view_000.*NaN or inf.*correct the pose"),
        (lambda s: _with_pose(s, np.diag([1.0, 1.0, 1.1, 1.0])), "view_000.*not orthonormal"),
        (lambda s: s.replace(provenance={"loss": float("nan")}), "JSON.*convert or remove"),
        (lambda s: s.replace(provenance={"what": object()}), "not a plain value.*convert or remove"),
        (
            lambda s: s.replace(objects=(dataclasses.replace(s.objects[0], box=np.full(6, np.nan)),)),
            r"objects\.0\.box.*finite",
        ),
        (
            lambda s: s.replace(
                frames=(dataclasses.replace(s.frames[0], load_colour=lambda: np.zeros((3, 3, 3), np.uint8)),)
            ),
            "view_000.*resize",
        ),
        (
            lambda s: s.replace(
                frames=(dataclasses.replace(s.frames[0], load_depth=lambda: np.full((16, 24), np.nan, np.float32)),)
            ),
            "view_000.*non-finite",
        ),
    ],
)
def test_unusable_facts_are_refused_and_nothing_is_left(tmp_path, make_scene, change, message):
    scene = make_scene()
    with pytest.raises(SceneError, match=message):
        write_scene(change(scene), tmp_path / "scene")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- interruption


@pytest.mark.parametrize("after", [0, 1, 3, 6, 7])
@pytest.mark.parametrize("overwrite", [False, True])
def test_full_disk(tmp_path, make_scene, monkeypatch, after, overwrite):
    folder = tmp_path / "scene"
    if overwrite:
        write_scene(make_scene(id="old"), folder)
    written = []
    write_bytes = Path.write_bytes

    def limited(self, data):
        if len(written) >= after:
            write_bytes(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(self)
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", limited)
    with pytest.raises(SceneError, match=r"No space left.*free some space") as error:
        write_scene(make_scene(), folder, overwrite=overwrite)
    assert str(folder) in str(error.value)
    assert "nothing half-written" in str(error.value)
    monkeypatch.undo()
    if overwrite:
        assert verify_scene(read_scene(folder)).id == "old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["scene"]
    else:
        assert not list(tmp_path.iterdir())


def test_a_read_only_folder(tmp_path, make_scene, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(SceneError, match=r"Permission denied.*may write to"):
        write_scene(make_scene(), tmp_path / "scene")


def test_an_exception_in_the_middle_leaves_nothing(tmp_path, make_scene):
    scene = make_scene()

    def interrupted() -> np.ndarray:
        assert list(tmp_path.glob(".scene.writing-*/frames/view_000.png"))  # it IS in the middle
        assert not (tmp_path / "scene").exists()
        raise KeyboardInterrupt

    broken = dataclasses.replace(scene.frames[2], load_colour=interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_scene(scene.replace(frames=(*scene.frames[:2], broken)), tmp_path / "scene")
    assert not list(tmp_path.iterdir())


def test_a_failed_exchange_brings_the_old_scene_back(tmp_path, make_scene, monkeypatch):
    folder = write_scene(make_scene(id="old"), tmp_path / "scene")
    rename = Path.rename

    def failing(self, target):
        if ".writing-" in self.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(SceneError, match="Input/output error"):
        write_scene(make_scene(id="new"), folder, overwrite=True)
    monkeypatch.undo()
    assert read_scene(folder).id == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scene"]


CHILD = """
    import dataclasses, sys, time
    from pathlib import Path
    from stereopsis.scenes import read_scene, write_scene

    source, place, halt = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "halt"
    scene = read_scene(source)

    def stop_here():
        print("in the middle", flush=True)
        time.sleep(60)

    if halt:
        slow = dataclasses.replace(scene.frames[-1], load_colour=stop_here)
        write_scene(scene.replace(frames=(*scene.frames[:-1], slow)), place)
    number = 0
    while True:
        write_scene(scene.replace(id=str(number)), place, overwrite=True)
        print(number, flush=True)
        number += 1
"""


def _child(tmp_path: Path, source: Path, place: Path, mode: str) -> subprocess.Popen:
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    paths = os.pathsep.join([str(Path(stored.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(script), str(source), str(place), mode],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def test_a_killed_writer_leaves_no_readable_half(tmp_path, make_scene):
    source = write_scene(make_scene(), tmp_path / "source")
    place = tmp_path / "out" / "scene"
    with _child(tmp_path, source, place, "halt") as child:
        assert child.stdout.readline() == "in the middle\n"
        child.send_signal(signal.SIGKILL)
    (rest,) = place.parent.iterdir()  # the hidden folder: some frames, no scene.json
    assert rest.name.startswith(".scene.writing-")
    assert len(list((rest / "frames").iterdir())) == 4
    for folder in (place, rest):
        with pytest.raises(SceneError, match=r"scene\.json"):
            read_scene(folder)
        with pytest.raises(SceneError):
            open_scene(folder)
    verify_scene(read_scene(write_scene(read_scene(source), place)))  # and the next run just works


def test_a_writer_killed_at_any_time_leaves_whole_scenes(tmp_path, make_scene):
    source = write_scene(make_scene(), tmp_path / "source")
    place = tmp_path / "out" / "scene"
    with _child(tmp_path, source, place, "repeat") as child:
        assert child.stdout.readline() == "0\n"
        seen = set()
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            # Read while it is replaced again and again; between two scenes the place is empty for a moment.
            with contextlib.suppress(SceneError):
                seen.add(read_scene(place).id)
        child.send_signal(signal.SIGKILL)
    assert len(seen) > 3
    for folder in place.parent.iterdir():
        if (folder / "scene.json").exists() and ".replaced-" not in folder.name:
            _assert_same(verify_scene(read_scene(folder)).replace(id="little"), read_scene(source))


# ---------------------------------------------------------------- what is refused when reading


def _edit(folder: Path, change) -> None:
    record = json.loads((folder / "scene.json").read_text())
    change(record)
    (folder / "scene.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda r: r.update(schema_version=2), SceneError, "schema version 2.*reads 1.*upgrade"),
        (lambda r: r.pop("schema_version"), SceneError, "schema version None"),
        (lambda r: r.update(format="other"), SceneError, "not a stereopsis-scene.*check the path"),
        (lambda r: r["frames"][0].update(name="../../etc/passwd"), FrameError, "cannot be a file name"),
        (lambda r: r["frames"][0].update(name="view_001"), SceneError, "two frames are named 'view_001'"),
        (lambda r: r.update(frames=[]), SceneError, "'frames'.*prepare the scene again"),
        (lambda r: r["frames"][1].update(camera=9), SceneError, "view_001.*camera"),
        (lambda r: r["frames"][1]["T_world_camera"][0].__setitem__(0, float("nan")), SceneError, "finite"),
        (lambda r: r["frames"][1]["T_world_camera"].pop(), SceneError, "T_world_camera"),
        (
            lambda r: r["frames"][1]["T_world_camera"][0].__setitem__(0, 3.0),
            FrameError,
            "view_001.*orthonormal",
        ),
        (lambda r: r["T_aligned_world"][3].__setitem__(3, 2.0), SceneError, "T_aligned_world"),
        (lambda r: r["cameras"][0].update(fx=-1.0), SceneError, "camera 0.*implausible intrinsics"),
        (lambda r: r["cameras"][0].pop("fx"), SceneError, r"cameras\.0\.fx.*required"),
        (lambda r: r["objects"][0]["box"].pop(), SceneError, r"objects\.0\.box"),
        (lambda r: r.update(depth_units_per_metre=0), SceneError, "depth_units_per_metre"),
        (lambda r: r.update(colour="red"), SceneError, "'colour'.*not permitted"),
        (lambda r: r.pop("objects"), SceneError, "'objects'.*required"),
    ],
)
def test_edited_scene_files(tmp_path, make_scene, change, kind, message):
    folder = write_scene(make_scene(), tmp_path / "scene")
    _edit(folder, change)
    with pytest.raises(kind, match=message) as error:
        read_scene(folder)
    assert str(folder / "scene.json") in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_scene_files_that_are_no_scenes(tmp_path, make_scene, content):
    folder = write_scene(make_scene(), tmp_path / "scene")
    (folder / "scene.json").write_bytes(content)
    with pytest.raises(SceneError, match=r"scene\.json"):
        read_scene(folder)


@pytest.mark.parametrize("content", [None, b"", b"{}[", b"[1]", b'[{"id": "a", "unknown": 1}]', b"[{}]"])
def test_annotations_that_are_no_annotations(tmp_path, make_scene, content):
    folder = write_scene(make_scene(), tmp_path / "scene")
    if content is None:
        (folder / "annotations.json").unlink()
    else:
        (folder / "annotations.json").write_bytes(content)
    with pytest.raises(SceneError, match=r"annotations\.json.*restore"):
        read_scene(folder)


def test_absent_folders(tmp_path):
    with pytest.raises(SceneError, match=r"nowhere: holds no scene\.json.*check the path"):
        read_scene(tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["view_001.png", "view_001.depth.png"])
def test_a_missing_frame_file(tmp_path, make_scene, file):
    folder = write_scene(make_scene(frames=6), tmp_path / "scene")
    (folder / "frames" / file).unlink()
    with pytest.raises(FrameError, match="does not exist; restore the file or prepare") as error:
        read_scene(folder)
    assert str(folder / "frames" / file) in str(error.value)
    scene = read_scene(folder, on_bad_frame="skip")
    assert [frame.name for frame in scene.frames] == [
        "view_000",
        "view_002",
        "view_003",
        "view_004",
        "view_005",
    ]
    assert list(scene.provenance["skipped"]) == ["view_001"]
    assert file in scene.provenance["skipped"]["view_001"]
    assert scene.objects[0].visible_pixels == (10, 12, 13, 14, 15)  # the counts stay with their frames
    assert scene.objects[1].visible_pixels == ()


@pytest.mark.parametrize("file", ["view_002.png", "view_002.depth.png", "../birdseye.png"])
def test_a_damaged_file_is_found_by_its_checksum(tmp_path, make_scene, file):
    folder = write_scene(make_scene(frames=6, birdseye=_birdseye()), tmp_path / "scene")
    damaged = (folder / "frames" / file).resolve()
    other = write_scene(make_scene(frames=6, birdseye=_birdseye(), id="x"), tmp_path / "x")
    shutil.copy(other / "frames" / "view_003.png", damaged)  # a perfectly good image, but not this one
    with pytest.raises(FrameError, match=r"checksum.*restore it or prepare the scene again") as error:
        verify_scene(read_scene(folder))
    assert str(damaged) in str(error.value)


def test_verify_skips_counts_and_stops(tmp_path, make_scene):
    folder = write_scene(make_scene(frames=10), tmp_path / "scene")
    for index in (1, 4):
        (folder / "frames" / f"view_{index:03d}.png").write_bytes(b"damaged")
    scene = verify_scene(read_scene(folder), on_bad_frame="skip")
    assert len(scene.frames) == 8
    assert set(scene.provenance["skipped"]) == {"view_001", "view_004"}
    assert scene.objects[0].visible_pixels == (10, 12, 13, 15, 16, 17, 18, 19)
    (folder / "frames" / "view_007.depth.png").write_bytes(b"damaged")
    with pytest.raises(SceneError, match=r"3 of 10 frames are unusable.*20%.*max_bad_fraction"):
        verify_scene(read_scene(folder), on_bad_frame="skip")
    assert len(verify_scene(read_scene(folder), on_bad_frame="skip", max_bad_fraction=0.3).frames) == 7


def test_skips_while_opening_and_verifying_add_up(tmp_path, make_scene):
    folder = write_scene(make_scene(frames=10), tmp_path / "scene")
    (folder / "frames" / "view_001.png").unlink()
    for index in (4, 5):
        (folder / "frames" / f"view_{index:03d}.png").write_bytes(b"damaged")
    opened = read_scene(folder, on_bad_frame="skip")
    with pytest.raises(SceneError, match="3 of 10"):
        verify_scene(opened, on_bad_frame="skip")
    both = verify_scene(opened, on_bad_frame="skip", max_bad_fraction=0.5)
    assert list(both.provenance["skipped"]) == ["view_001", "view_004", "view_005"]


def test_even_a_generous_threshold_needs_one_frame(tmp_path, make_scene):
    folder = write_scene(make_scene(frames=2), tmp_path / "scene")
    for file in (folder / "frames").iterdir():
        file.write_bytes(b"")
    with pytest.raises(SceneError, match="2 of 2"):
        verify_scene(read_scene(folder), on_bad_frame="skip", max_bad_fraction=1.0)


def test_unknown_policy():
    with pytest.raises(SceneError, match="'ignore' is unknown; choose 'raise' or 'skip'"):
        check_policy("ignore")


# ---------------------------------------------------------------- real data


def test_the_real_kitchen_survives(tmp_path, kitchen):
    scene = read_seven_scenes(kitchen)
    scene = scene.replace(frames=scene.frames[::25])
    back = verify_scene(read_scene(write_scene(scene, tmp_path / "kitchen")))
    assert [frame.name for frame in back.frames] == [frame.name for frame in scene.frames]
    for one, two in zip(scene.frames, back.frames, strict=True):
        np.testing.assert_array_equal(one.depth(), two.depth())
        np.testing.assert_array_equal(one.T_world_camera, two.T_world_camera)
        error = np.mean((one.colour().astype(float) - two.colour()) ** 2)
        assert 10 * np.log10(255**2 / error) > 45


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "a/b", "a\\b", ".", "..", ".hidden", "", " ", "a\0b", "a\nb", "a\x1bb", "é" * 101]
)
def test_ids_that_lead_out_of_their_folder(tmp_path, make_scene, name):
    scene = make_scene()
    with pytest.raises(SceneError, match="cannot be a folder's name"):
        scene.replace(id=name)
    write_scene(scene, tmp_path / "a")
    file = tmp_path / "a" / "scene.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"id": name}))
    with pytest.raises(SceneError, match="rename the scene"):
        read_scene(tmp_path / "a")


@pytest.mark.parametrize("name", ["a b", "kitchen.2", "厨房", "é" * 100, "scene0000_00", "-x"])
def test_ids_that_are_names(tmp_path, make_scene, name):
    scene = make_scene().replace(id=name)
    assert read_scene(write_scene(scene, tmp_path / name)).id == name


def test_a_hostile_id_never_writes_outside(tmp_path, make_scene):
    """Neither into another folder nor, with overwrite, over another scene."""
    victim = write_scene(make_scene(), tmp_path / "victim")
    before = (victim / "scene.json").read_bytes()
    source = write_scene(make_scene(), tmp_path / "in" / "a")
    file = source / "scene.json"
    for name in ("../victim", str(victim)):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"id": name}))
        report = prepare(find_captures(tmp_path / "in"), tmp_path / "out", workers=1, overwrite=True)
        assert [outcome.status for outcome in report.outcomes] == ["failed"]
        assert "cannot be a folder's name" in report.outcomes[0].reason
        assert (victim / "scene.json").read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "victim"]
