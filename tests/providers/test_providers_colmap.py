"""A turned video of a room becomes a scene through the command line, by COLMAP and plane sweeping."""

import json
import sys

import numpy as np
import pytest
from test_providers_pictures import film
from textured_room import CAMERA, cast, pose, walk

from stereopsis.errors import MissingExtraError, SceneError
from stereopsis.providers.colmap import Colmap
from stereopsis.providers.pictures import held
from stereopsis.scenes import open_scene

pytest.importorskip("pycolmap")
SMALL = CAMERA.resized(240, 180)
SHOTS = [cast(T, SMALL) for T in walk(6)]


def run(*arguments):
    from stereopsis.cli.commands import app

    app([str(a) for a in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("video")
    film(folder / "room.mp4", [colour for colour, _ in SHOTS], turned=True)
    ends = ("frame-000000", "frame-000005")
    length = np.linalg.norm(walk(6)[5][:3, 3] - walk(6)[0][:3, 3])
    run(
        "prepare",
        folder / "room.mp4",
        "-o",
        folder / "out",
        "--geometry",
        "colmap",
        "--known-distance",
        length,
        "--between",
        *ends,
        "--workers",
        1,
        "--birdseye",
        96,
    )
    return folder


def test_video_in_scene_out(prepared):
    scene = open_scene(prepared / "out" / "room")
    assert len(scene.frames) == 6
    first = scene.frames[0].T_world_camera
    for n, frame in enumerate(scene.frames):
        real = np.linalg.inv(walk(6)[0]) @ walk(6)[n]
        found = np.linalg.inv(first) @ frame.T_world_camera
        assert np.linalg.norm(found[:3, 3] - real[:3, 3]) < 0.02
        assert np.degrees(np.arccos(np.clip((np.trace(found[:3, :3].T @ real[:3, :3]) - 1) / 2, -1, 1))) < 0.5
        depth = frame.depth()
        rows = ((np.arange(depth.shape[0]) + 0.5) * 180 / depth.shape[0]).astype(int)
        cols = ((np.arange(depth.shape[1]) + 0.5) * 240 / depth.shape[1]).astype(int)
        ok = depth > 0
        assert ok.mean() > 0.4
        assert np.median(np.abs(depth[ok] / SHOTS[n][1][np.ix_(rows, cols)][ok] - 1)) < 0.02
    up = scene.T_aligned_world[:3, :3] @ first[:3, :3] @ walk(6)[0][:3, :3].T @ [0, 0, 1]
    assert up[2] > np.cos(np.radians(3))
    heights = [scene.T_aligned_camera(frame)[2, 3] for frame in scene.frames]
    assert np.allclose(heights, [T[2, 3] for T in walk(6)], atol=0.08)
    facts = scene.provenance
    assert facts["geometry"]["provider"] == "colmap+plane_sweep"
    assert facts["scale"]["known"] is True
    assert scene.birdseye is not None
    (told,) = json.loads((prepared / "out" / "prepare.json").read_text())["scenes"]
    assert told["usable"]


def test_it_is_kept(prepared, capsys):
    run(
        "prepare",
        prepared / "room.mp4",
        "-o",
        prepared / "out",
        "--geometry",
        "colmap",
        "--known-distance",
        np.linalg.norm(walk(6)[5][:3, 3] - walk(6)[0][:3, 3]),
        "--between",
        "frame-000000",
        "frame-000005",
        "--workers",
        1,
        "--birdseye",
        96,
    )
    assert "1 there already" in capsys.readouterr().out


def test_a_camera_that_only_turns_is_said():
    turning = [held(cast(pose([-0.5, 0, 1.4], 8.0 * n))[0], f"p{n}") for n in range(4)]
    with pytest.raises(SceneError, match=r"no parallax.*walk sideways"):
        Colmap().estimate(turning, in_order=True)


def test_pictures_that_share_nothing_are_said():
    rng = np.random.default_rng(0)
    noise = [held(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8), f"p{n}") for n in range(4)]
    with pytest.raises(SceneError, match="finds nothing that two of the 4 pictures share"):
        Colmap().estimate(noise, in_order=True)


def test_too_few_pictures_are_said():
    with pytest.raises(SceneError, match="got 3 pictures, but estimating cameras takes 4 or more"):
        Colmap().estimate([held(SHOTS[n][0], f"p{n}") for n in range(3)], in_order=True)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stereopsis\[colmap\]'"):
        Colmap().check()
