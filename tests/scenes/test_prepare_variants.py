"""One real kitchen in five layouts gives one prepared scene, to within what each layout rounds."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from capture_writers import WRITERS
from scipy.spatial.transform import Rotation

from stereopsis.scenes.prepare import Capture, PrepareSettings, prepare
from stereopsis.scenes.readers.scannet import sens_record, write_sens
from stereopsis.scenes.readers.seven_scenes import read_seven_scenes
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.stored import read_scene, write_scene

KITCHEN = Path(__file__).resolve().parents[3] / "shared" / "data" / "seven_scenes_redkitchen"
SETTINGS = PrepareSettings(birdseye_size=108, surface="depth")


@pytest.fixture(scope="module")
def frames():
    """Every sixteenth frame, its rotation made exactly orthonormal, as quaternions hold nothing else."""
    if not KITCHEN.is_dir():
        pytest.skip("the real kitchen capture is not present")
    frames = []
    for frame in read_seven_scenes(KITCHEN).frames[::16]:
        pose = frame.T_world_camera.copy()
        pose[:3, :3] = Rotation.from_matrix(pose[:3, :3]).as_matrix()
        frames.append(dataclasses.replace(frame, T_world_camera=pose))
    return frames


@pytest.fixture(scope="module")
def reference(frames, tmp_path_factory):
    """The frames in the layout that loses nothing: the package's own."""
    folder = tmp_path_factory.mktemp("reference")
    write_scene(Scene(id="kitchen", frames=tuple(frames)), folder / "raw" / "kitchen")
    (made,) = prepare([Capture(path=folder / "raw" / "kitchen")], folder / "out", SETTINGS, workers=1).folders
    return read_scene(made)


def write_scan(folder, frames):
    folder.mkdir(parents=True)
    write_sens(folder / f"{folder.name}.sens", map(sens_record, frames), colour_intrinsics=frames[0].intrinsics)
    return folder


@pytest.mark.parametrize("layout", ["tum", "open3d", "transforms_json", "sens"])
def test_the_same_kitchen_comes_out(layout, frames, reference, tmp_path):
    write = write_scan if layout == "sens" else WRITERS[layout]
    path = write(tmp_path / "kitchen", frames)
    (outcome,) = prepare([Capture(path=path)], tmp_path / "out", SETTINGS, workers=1).outcomes
    assert outcome.status == "done", outcome.reason
    scene = read_scene(outcome.folder)
    assert len(scene.frames) == len(reference.frames)
    np.testing.assert_allclose(scene.T_aligned_world, reference.T_aligned_world, atol=2e-3)
    for frame, expected in zip(scene.frames, reference.frames, strict=True):
        pose, original = scene.T_aligned_camera(frame), reference.T_aligned_camera(expected)
        np.testing.assert_allclose(pose, original, atol=5e-3)
        np.testing.assert_allclose(frame.depth(), expected.depth(), atol=1.001e-3)
        difference = np.abs(frame.colour().astype(int) - expected.colour().astype(int))
        assert difference.mean() < 2.0  # .sens and the stored layout hold JPEGs
    seen, expected_seen = scene.birdseye, reference.birdseye
    np.testing.assert_allclose(seen.origin, expected_seen.origin, atol=0.02)
    assert seen.metres_per_pixel == pytest.approx(expected_seen.metres_per_pixel, rel=0.01)
    assert (seen.void == expected_seen.void).mean() > 0.95
    both = ~seen.void & ~expected_seen.void
    grey = [view.image.mean(-1)[both] for view in (seen, expected_seen)]
    assert np.corrcoef(*grey)[0, 1] > 0.9
    assert len(scene.proposals) == pytest.approx(len(reference.proposals), abs=2)
