"""Views that see most: picks on a hand-made scene, limits, ties, caching, and what is refused."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry import Intrinsics, unproject
from stereopsis.scenes import selection
from stereopsis.scenes.formats import open_scene
from stereopsis.scenes.scene import Frame, Scene
from stereopsis.scenes.selection import cached_coverage_order, coverage_order, select_views, uniform_indices

K = Intrinsics(fx=10.0, fy=10.0, cx=10.0, cy=5.0, width=20, height=10)
READS: list[str] = []


def _depth(name: str, columns: tuple[int, int], pixels: np.ndarray | None = None) -> np.ndarray:
    """A wall 1 m away (2 x 1 m, 20 x 10 voxels of 0.1 m), of which only some columns have depth."""
    READS.append(name)
    depth = np.zeros((10, 20), dtype=np.float32)
    depth[:, columns[0] : columns[1]] = 1.0
    return depth if pixels is None else pixels


def _nothing() -> np.ndarray:
    raise AssertionError("choosing views must not decode colours")


def _frame(name: str, first: int, last: int, **changes) -> Frame:
    load = functools.partial(_depth, name, (first, last))
    pose = np.eye(4)
    pose[:2, 3] = 0.03, 0.03  # pixel centres lie on no border between voxels
    return Frame(name=name, T_world_camera=pose, intrinsics=K, load_colour=_nothing, **{"load_depth": load, **changes})


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(selection, "_KNOWN", {})
    READS.clear()


@pytest.fixture
def wall() -> Scene:
    """Columns 0-7, none, 0-10, 10-17 (as many as a), 14-20: the order is 2 (10), 3 (7), 4 (3), then 0 and 1."""
    spans = {"a": (0, 7), "b": (0, 0), "c": (0, 10), "d": (10, 17), "e": (14, 20)}
    return Scene(id="a wall", frames=tuple(_frame(name, *span) for name, span in spans.items()))


def test_hand_picks(wall):
    found = coverage_order(wall)
    assert found.order.tolist() == [2, 3, 4, 0, 1]
    assert found.gains.tolist() == [100, 70, 30, 0, 0]
    assert found.total == 200
    assert select_views(wall, 2, selection="coverage") == [2, 3]
    assert select_views(wall, 5, selection="coverage") == [2, 3, 4], "what adds nothing is not taken"
    assert select_views(wall, None, selection="coverage", coverage=0.85) == [2, 3]
    assert select_views(wall, None, selection="coverage", coverage=0.86) == [2, 3, 4]
    assert select_views(wall, 1, selection="coverage", coverage=0.95) == [2]
    assert select_views(wall, 3) == uniform_indices(5, 3) == [0, 2, 4]


def test_picks_come_back_in_capture_order(wall):
    backwards = wall.replace(frames=wall.frames[::-1])
    assert coverage_order(backwards).order.tolist()[:3] == [2, 1, 0]
    assert select_views(backwards, None, selection="coverage") == [0, 1, 2]


def test_voxels_are_counted_in_the_aligned_frame(wall):
    turned = np.eye(4)
    turned[:3, 3] = 100.0, -3.0, 0.5
    assert coverage_order(wall.replace(T_aligned_world=turned)).gains.tolist() == [100, 70, 30, 0, 0]


def test_only_voxels_with_surface_count(wall):
    frame = wall.frames[4]
    cloud = unproject(frame.depth(), K, frame.T_world_camera)
    found = coverage_order(wall, surface=cloud.points[cloud.valid].astype(np.float64))
    assert found.order.tolist()[:2] == [4, 0]
    assert found.total == 60


def test_few_candidates_are_spread(wall):
    found = coverage_order(wall, max_candidates=3)  # 0, 2, 4
    assert found.order.tolist() == [2, 4, 0]
    assert found.total == 160


def test_the_order_is_kept(wall, tmp_path):
    first = select_views(wall, 2, selection="coverage", cache=tmp_path)
    assert len(READS) == 5
    copy = wall.replace(proposals=())  # another object, the same scene
    assert select_views(copy, 3, selection="coverage", coverage=0.9, cache=tmp_path) == [2, 3, 4]
    assert len(READS) == 5, "read once, in memory"
    selection._KNOWN.clear()
    assert select_views(copy, 2, selection="coverage", cache=tmp_path) == first
    assert len(READS) == 5, "read once, on disk"
    (file,) = tmp_path.glob("*.json")
    record = json.loads(file.read_text())
    assert record["names"] == ["c", "d", "e", "a", "b"]
    moved = wall.frames[0].T_world_camera.copy()
    moved[0, 3] += 0.5
    other = wall.replace(frames=(dataclasses.replace(wall.frames[0], T_world_camera=moved), *wall.frames[1:]))
    select_views(other, 2, selection="coverage", cache=tmp_path)
    assert len(READS) == 10, "another pose is another scene"
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: "{",
        lambda record: "[]",
        lambda record: json.dumps({**record, "order": [2, 2, 4, 0, 1]}),
        lambda record: json.dumps({**record, "order": [2, 3, 4, 0, 9]}),
        lambda record: json.dumps({**record, "gains": [100, 70, 30, 0]}),
        lambda record: json.dumps({**record, "total": 7}),
        lambda record: json.dumps({**record, "fingerprint": "another scene's"}),
    ],
)
def test_a_damaged_entry_is_made_again(wall, tmp_path, damage):
    expected = cached_coverage_order(wall, tmp_path)
    (file,) = tmp_path.glob("*.json")
    sound = file.read_text()
    file.write_text(damage(json.loads(sound)))
    selection._KNOWN.clear()
    found = cached_coverage_order(wall, tmp_path)
    np.testing.assert_array_equal(found.order, expected.order)
    np.testing.assert_array_equal(found.gains, expected.gains)
    assert found.total == 200
    assert file.read_text() == sound


def test_refusals(wall):
    flat = wall.replace(frames=tuple(dataclasses.replace(frame, load_depth=None) for frame in wall.frames))
    assert select_views(flat, 2) == [0, 4]
    with pytest.raises(SceneError, match=r"'a wall': none of its frames has depth.*'uniform'"):
        select_views(flat, 2, selection="coverage")
    empty = wall.replace(frames=(wall.frames[1],))
    with pytest.raises(SceneError, match="no depth pixel of 1 frames is valid; check"):
        select_views(empty, 2, selection="coverage")
    with pytest.raises(SceneError, match="no frames"):
        select_views(wall.replace(frames=()), 2)
    with pytest.raises(SceneError, match=r"ratio is 1\.5"):
        select_views(wall, 2, selection="coverage", coverage=1.5)
    small = functools.partial(_depth, "small", (0, 3), np.ones((4, 4), dtype=np.float32))
    odd = wall.replace(frames=(*wall.frames, dataclasses.replace(wall.frames[0], name="odd", load_depth=small)))
    with pytest.raises(FrameError, match=r"frame 'odd': depth: float32 \[4, 4\].*on_bad_frame"):
        select_views(odd, 2, selection="coverage")


def test_frames_without_depth_are_passed_over(wall):
    mixed = wall.replace(frames=(dataclasses.replace(wall.frames[2], load_depth=None), *wall.frames[3:]))
    assert select_views(mixed, 3, selection="coverage") == [1, 2]


def test_a_real_kitchen_is_seen_better_by_coverage(shared_data):
    kitchen = open_scene(shared_data / "seven_scenes_redkitchen")
    kitchen = kitchen.replace(frames=kitchen.frames[::5])  # 25 frames
    order = coverage_order(kitchen)
    assert (np.diff(order.gains) <= 0).all(), "what a view adds can only shrink"
    best = order.first(6)
    sets = [set(selection._frame_voxels(kitchen, frame, 0.1).tolist()) for frame in kitchen.frames]
    seen = [len(set().union(*(sets[i] for i in chosen))) for chosen in (best, uniform_indices(len(sets), 6))]
    assert seen[0] == order.gains[:6].sum()
    assert seen[0] > 1.05 * seen[1]
    assert len(order.first(ratio=0.9)) < len(order.first(ratio=0.95)) < len(kitchen.frames)
