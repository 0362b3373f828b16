"""Preparing many sources: found, kept, refused, interrupted, over processes that may die."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stereopsis.errors import SceneError
from stereopsis.scenes.prepare import Capture, PrepareSettings, Room, find_captures, prepare
from stereopsis.scenes.prepare import parallel as running
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.stored import read_scene


def copies(capture: Path, folder: Path, *names: str) -> Path:
    for name in names:
        shutil.copytree(capture, folder / name)
    return folder


def damage(scene: Path, frames: int) -> None:
    """Cut the first frames' depth images short."""
    for number in range(frames):
        depth = scene / f"frame-{number:06d}.depth.png"
        depth.write_bytes(depth.read_bytes()[:-60])


REAL_SCAN = Path(__file__).resolve().parents[3] / "shared" / "data" / "scannet" / "scene0000_00"


# --- finding


def test_captures_are_found_wherever_they_lie_and_named_apart(capture, tmp_path):
    root = copies(capture, tmp_path, "b/seq-01", "a/seq-01", "a/kitchen", ".hidden/office")
    (root / "empty").mkdir()
    found = find_captures(root)
    assert [c.path for c in found] == [root / "a" / "kitchen", root / "a" / "seq-01", root / "b" / "seq-01"]
    assert [c.rename for c in found] == [None, "a-seq-01", "b-seq-01"]
    (alone,) = find_captures(root / "a" / "kitchen")
    assert (alone.path, alone.rename) == (root / "a" / "kitchen", None)


def test_links_are_followed_once_and_loops_end(capture, tmp_path):
    root = copies(capture, tmp_path / "root", "office")
    (root / "again").symlink_to(root)
    (root / "loop").symlink_to(root / "loop")
    outside = copies(capture, tmp_path / "outside", "den")
    (root / "linked").symlink_to(outside)
    assert [c.path.name for c in find_captures(root)] == ["den", "office"]


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_where_nothing_is_a_scene_the_place_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(SceneError, match=str(tmp_path / name)):
        find_captures(tmp_path / name)


def test_a_named_layout_is_taken_at_its_word(capture, tmp_path):
    root = copies(capture, tmp_path, "one", "two")
    assert [c.path.name for c in find_captures(root, format="seven_scenes")] == ["one", "two"]
    assert find_captures(root / "one", format="seven_scenes") == [Capture(path=root / "one", format="seven_scenes")]
    assert find_captures(root / "one", format="stored") == [Capture(path=root / "one", format="stored")]


# --- preparing


def test_views_are_chosen_after_the_room_was_seen_whole(capture, tmp_path):
    whole = prepare([Capture(path=capture)], tmp_path / "whole", workers=1)
    few = prepare([Capture(path=capture)], tmp_path / "few", PrepareSettings(views=3), workers=1)
    best = PrepareSettings(selection="coverage", coverage=0.9)
    covering = prepare([Capture(path=capture)], tmp_path / "covering", best, workers=1)
    scenes = [read_scene(report.folders[0]) for report in (whole, few, covering)]
    assert [frame.name for frame in scenes[1].frames] == ["frame-000000", "frame-000004", "frame-000009"]
    assert few.outcomes[0].notes["views"] == {"of": 10, "kept": 3, "selection": "uniform"}
    assert 1 < len(scenes[2].frames) < 10
    for scene in scenes[1:]:
        assert np.array_equal(scene.birdseye.image, scenes[0].birdseye.image)
        assert [p.box.tolist() for p in scene.proposals] == [p.box.tolist() for p in scenes[0].proposals]


@pytest.mark.skipif(not REAL_SCAN.is_dir(), reason="needs the real scan")
def test_a_real_scan_is_prepared_from_its_mesh(tmp_path):
    pytest.importorskip("embreex")
    (outcome,) = prepare([Capture(path=REAL_SCAN)], tmp_path, workers=1).outcomes
    assert outcome.status == "done", outcome.reason
    scene = read_scene(outcome.folder)
    assert len(scene.frames) == 3
    assert all((frame.depth() > 0).mean() > 0.9 for frame in scene.frames)
    assert outcome.notes["seen_from_above"] > 0.7  # three views alone would show far less
    assert len(scene.objects) > 20


def test_without_a_mesh_one_is_fused_or_points_serve(capture, tmp_path):
    (refused,) = prepare([Capture(path=capture)], tmp_path, PrepareSettings(surface="mesh"), workers=1).outcomes
    assert "brings no mesh" in refused.reason
    pytest.importorskip("skimage")
    pytest.importorskip("embreex")
    (fused,) = prepare([Capture(path=capture)], tmp_path, PrepareSettings(surface="fused"), workers=1).outcomes
    assert fused.status == "done", fused.reason
    assert 0.3 < fused.notes["seen_from_above"] <= 1.0


def test_candidate_boxes_come_from_geometry_a_file_or_nowhere(capture, tmp_path):
    (made,) = prepare([Capture(path=capture)], tmp_path / "a", workers=1).folders
    assert read_scene(made).proposals
    assert read_scene(made).provenance["proposals"]["source"] == "geometry"
    (bare,) = prepare([Capture(path=capture)], tmp_path / "b", PrepareSettings(proposals="none"), workers=1).folders
    assert not read_scene(bare).proposals
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"office": [{"box": [0, 0, 1, 1, 1, 2], "score": 0.5, "label": "desk"}]}))
    (told,) = prepare([Capture(path=capture)], tmp_path / "c", PrepareSettings(proposals=str(boxes)), workers=1).folders
    (only,) = read_scene(told).proposals
    assert (only.label, only.score, only.box.tolist()) == ("desk", 0.5, [0, 0, 1, 1, 1, 2])
    (lost,) = prepare([Capture(path=capture)], tmp_path / "d", PrepareSettings(proposals="no.json"), workers=1).outcomes
    assert "no.json: no such file" in lost.reason


@pytest.mark.parametrize("wrong", [{"coverage": 0.9}, {"coverage": 2.0, "selection": "coverage"}, {"views": 0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(SceneError):
        PrepareSettings(**wrong)


def test_a_capture_is_stood_upright_seen_from_above_and_written_whole(capture, tmp_path):
    report = prepare(find_captures(capture), tmp_path / "out", workers=1)
    (outcome,) = report.outcomes
    assert (outcome.status, outcome.frames, outcome.skipped) == ("done", 10, {})
    assert outcome.folder == tmp_path / "out" / "office"
    scene = read_scene(outcome.folder)
    assert scene.birdseye.image.shape == (432, 432, 3)
    up = scene.T_aligned_world[:3, :3] @ np.loadtxt(capture / "true-up.txt")
    assert np.degrees(np.arccos(np.clip(up[2], -1, 1))) < 2.0
    heights = [scene.T_aligned_camera(frame)[2, 3] for frame in scene.frames]
    assert 0.8 < min(heights) <= max(heights) < 2.2  # eye height above a floor near zero
    assert np.array_equal(scene.frames[4].colour(), np.asarray(Image.open(capture / "frame-000004.color.png")))
    assert outcome.notes["alignment"]["method"] == "estimated"
    assert 0.0 < outcome.notes["seen_from_above"] < 1.0
    assert scene.provenance["prepared"]["source"] == str(capture)


def test_bad_frames_are_skipped_and_counted_up_to_a_limit(capture, tmp_path):
    root = copies(capture, tmp_path / "scans", "few", "many")
    damage(root / "few", 2)
    damage(root / "many", 3)
    report = prepare(find_captures(root), tmp_path / "out", PrepareSettings(on_bad_frame="skip"), workers=1)
    few, many = report.outcomes
    assert few.status == "done"
    assert list(few.skipped) == ["frame-000000", "frame-000001"]
    assert [frame.name for frame in read_scene(few.folder).frames] == [f"frame-{i:06d}" for i in range(2, 10)]
    assert many.status == "failed"
    assert "3 of 10 frames are unusable, more than the tolerated 20%" in many.reason
    assert report.failed_share == 0.5
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["few", "prepare.json"]


def test_what_is_there_is_kept_refused_or_replaced(capture, tmp_path):
    root = copies(capture, tmp_path / "scans", "den")
    out = tmp_path / "out"
    prepare(find_captures(root), out, workers=1)
    made = (out / "den" / "scene.json").stat().st_mtime_ns
    assert prepare(find_captures(root), out, workers=1).count("kept") == 1
    (other,) = prepare(find_captures(root), out, PrepareSettings(birdseye_size=64), workers=1).outcomes
    assert "other settings (birdseye_size: 432 there, 64 now)" in other.reason
    elsewhere = copies(capture, tmp_path / "elsewhere", "den")
    (foreign,) = prepare(find_captures(elsewhere), out, workers=1).outcomes
    assert f"holds a scene made from {root / 'den'}" in foreign.reason
    assert (out / "den" / "scene.json").stat().st_mtime_ns == made
    assert prepare(find_captures(elsewhere), out, workers=1, overwrite=True).count("done") == 1
    assert read_scene(out / "den").provenance["prepared"]["source"] == str(elsewhere / "den")


def test_scenes_that_would_overwrite_each_other_are_refused_first(tmp_path):
    with pytest.raises(SceneError, match="both become scene 'room-00000003'"):
        prepare([Room(seed=3), Room(seed=4), Room(seed=3)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Troubled:
    """A source that fails in a way of its own; the others copy a capture."""

    name: str
    capture: Path
    trouble: str = ""
    scene_id: str | None = None

    def load(self, settings: PrepareSettings) -> Scene:
        if self.trouble == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "raises":
            raise ZeroDivisionError("who would have thought")
        if self.trouble == "stops":
            raise KeyboardInterrupt
        return Capture(path=self.capture).load(settings).replace(id=self.name)

    def made_with(self, settings: PrepareSettings) -> dict:
        return {}


def test_an_unforeseen_error_fails_one_scene_and_leaves_a_trace(capture, tmp_path):
    sources = [Troubled(name=n, capture=capture, trouble=t) for n, t in (("a", ""), ("b", "raises"), ("c", ""))]
    report = prepare(sources, tmp_path, workers=1)
    assert [outcome.status for outcome in report.outcomes] == ["done", "failed", "done"]
    assert "ZeroDivisionError: who would have thought" in report.outcomes[1].reason
    summary = json.loads((tmp_path / "prepare.json").read_text())
    assert (summary["sources"], summary["done"], summary["failed"]) == (3, 2, 1)
    assert "in load" in summary["scenes"][1]["trace"]


def test_a_dying_worker_takes_only_its_own_scene(capture, tmp_path):
    names = [("a", ""), ("b", ""), ("c", "dies"), ("d", "")]
    report = prepare([Troubled(name=n, capture=capture, trouble=t) for n, t in names], tmp_path, workers=2)
    # A scene that was written just before the pool broke is found there by the second attempt.
    innocent = [outcome.status for outcome in report.outcomes if outcome.status != "failed"]
    assert [outcome.status for outcome in report.outcomes].index("failed") == 2
    assert len(innocent) == 3
    assert set(innocent) <= {"done", "kept"}
    assert "died" in report.outcomes[2].reason
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["a", "b", "d", "prepare.json"]


def test_an_interrupted_run_says_what_it_did_and_goes_on(capture, tmp_path):
    first = [Troubled(name=n, capture=capture, trouble=t) for n, t in (("a", ""), ("b", "stops"), ("c", ""))]
    with pytest.raises(KeyboardInterrupt):
        prepare(first, tmp_path, workers=1)
    assert json.loads((tmp_path / "prepare.json").read_text())["done"] == 1
    again = prepare([dataclasses.replace(s, trouble="") for s in first], tmp_path, workers=1)
    assert [outcome.status for outcome in again.outcomes] == ["kept", "done", "done"]


def test_rooms_go_through_the_same_door(tmp_path):
    pytest.importorskip("embreex")
    report = prepare([Room(seed=seed) for seed in (5, 6)], tmp_path, workers=1)
    assert [folder.name for folder in report.folders] == ["room-00000005", "room-00000006"]
    scene = read_scene(report.folders[0])
    assert scene.annotations
    assert scene.birdseye.image.shape == (128, 128, 3)
    assert prepare([Room(seed=5)], tmp_path, PrepareSettings(birdseye_size=7), workers=1).count("kept") == 1


def test_a_full_disk_is_told_and_leaves_nothing_half_written(capture, tmp_path, monkeypatch):
    def full(_path: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stereopsis.scenes.stored.Path.write_bytes", full)
    (outcome,) = prepare([Capture(path=capture)], tmp_path, workers=1).outcomes
    assert outcome.status == "failed"
    assert "No space left on device" in outcome.reason
    assert not (tmp_path / "office").exists()


def test_the_table_names_what_failed_and_how_much_more(capture, tmp_path):
    sources = [Troubled(name=f"s{n}", capture=capture, trouble="raises") for n in range(5)]
    table = prepare(sources, tmp_path, workers=1).table(most=3)
    assert table.row_count == 4
    assert "5 failed" in table.title


def test_over_ray_the_same_comes_out(capture, tmp_path):
    pytest.importorskip("ray")
    root = copies(capture, tmp_path / "scans", "one", "two")
    damage(root / "two", 1)
    report = prepare(find_captures(root), tmp_path / "out", workers=1, ray="local")
    assert [outcome.status for outcome in report.outcomes] == ["done", "failed"]
    assert read_scene(tmp_path / "out" / "one").birdseye is not None


def test_without_ray_the_extra_is_named(monkeypatch, capture, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(SceneError, match=r"stereopsis\[ray\]"):
        prepare([Capture(path=capture)], tmp_path, ray="local")


def test_usable_cpus_is_at_least_one():
    assert running.usable_cpus() >= 1
