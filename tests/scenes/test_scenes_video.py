"""Plain videos: every frame a view, decoded when asked for, in the order in which frames are shown."""

import pickle

import numpy as np
import pytest

from stereopsis.errors import SceneError
from stereopsis.scenes import open_scene
from stereopsis.scenes.prepare import find_captures
from stereopsis.scenes.selection import uniform_indices

av = pytest.importorskip("av")


def write_video(path, frames: int, *, codec: str = "mpeg4", side: int = 32) -> None:
    """A grey that grows by 15 from frame to frame; key frames are rare, and frames depend on later ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"g": "6", "bf": "2", "qscale": "1"})
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for n in range(frames):
            picture = np.full((side, side, 3), 20 + 15 * n, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_frames_in_any_order(tmp_path, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    write_video(tmp_path / "scannet" / "scene0011_00.mp4", 14, codec=codec)
    [capture] = find_captures(tmp_path)
    scene = open_scene(capture.path)
    assert scene.id == "scene0011_00"
    assert len(scene.frames) == 14
    assert scene.provenance["poses"] == "unknown"
    for n in (13, 0, 7, 6, 5, 12, 1):
        frame = pickle.loads(pickle.dumps(scene.frames[n]))
        colour = frame.colour()
        assert colour.shape == (32, 32, 3)
        assert colour.dtype == np.uint8
        assert abs(float(colour.mean()) - (20 + 15 * n)) < 7
        assert frame.depth() is None


def test_folders_of_videos_are_scenes_each(tmp_path):
    for name in ("arkitscenes/41069025.mp4", "scannet/scene0011_00.mp4", "scannet/scene0015_00.mp4"):
        write_video(tmp_path / name, 3)
    (tmp_path / "test.jsonl").write_text("")
    assert [each.path.stem for each in find_captures(tmp_path)] == ["41069025", "scene0011_00", "scene0015_00"]


@pytest.mark.parametrize(("total", "count"), [(300, 32), (33, 32), (1234, 16), (777, 128), (40, 1), (5, 8)])
def test_uniform_views_are_the_frames_that_vsi_bench_takes(total, count):
    """As lmms-eval: linspace over min(count, total), cut to integers; the last frame, which VLMEvalKit adds, is in."""
    taken = np.linspace(0, total - 1, min(count, total), dtype=int).tolist()
    assert uniform_indices(total, count) == taken
    if count > 1:
        assert taken[-1] == total - 1


def test_what_is_no_video_is_named(tmp_path):
    file = tmp_path / "a.mp4"
    file.write_bytes(b"no video")
    with pytest.raises(SceneError, match="cannot be read as a video"):
        open_scene(file)
