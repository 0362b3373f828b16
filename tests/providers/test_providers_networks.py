"""Networks' conventions, by stand-ins with the interfaces of the real packages that answer the exact truth in them."""

import importlib.machinery
import itertools
import sys
import types

import numpy as np
import pytest
from textured_room import CAMERA, cast, walk

from stereopsis.errors import MissingExtraError
from stereopsis.providers.networks import believed
from stereopsis.providers.pictures import held
from stereopsis.providers.provider import EstimatedView
from stereopsis.providers.registry import make_provider
from stereopsis.providers.rooms_geometry import laid_onto, windows
from stereopsis.scenes.rooms import make_room

POSES = walk(3)
SHOTS = [cast(T) for T in POSES]
PICTURES = [held(colour, f"p{n}") for n, (colour, _) in enumerate(SHOTS)]
SMALL = CAMERA.resized(80, 60)
DEPTH = np.stack([depth[2::4, 2::4] for _, depth in SHOTS])
DOUBT = np.zeros_like(DEPTH, dtype=bool)
DOUBT[:, :12] = True
"""The upper fifth of every picture, of which the stand-ins are not sure."""


def stand_in(monkeypatch, **modules):
    for name, contents in modules.items():
        dotted = name.replace("__", ".")
        module = types.ModuleType(dotted)
        module.__spec__ = importlib.machinery.ModuleSpec(dotted, None)
        module.__path__ = []
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, dotted, module)


class DepthAnything3:
    """World-to-camera [N, 3, 4], confidence from 1 upwards, a unit of its own."""

    unit = 0.3

    @classmethod
    def from_pretrained(cls, weights):
        return cls()

    def to(self, device):
        return self

    def eval(self):
        return self

    def inference(self, image, **options):
        extrinsics = np.stack([np.linalg.inv(T)[:3] for T in POSES])
        extrinsics[:, :, 3] *= self.unit
        return types.SimpleNamespace(
            depth=(DEPTH * self.unit).astype(np.float32),
            conf=np.where(DOUBT, 1.0, 3.0).astype(np.float32) + DEPTH * 1e-3,
            extrinsics=extrinsics.astype(np.float32),
            intrinsics=np.stack([SMALL.matrix] * len(image)).astype(np.float32),
        )


class MapAnything:
    """Camera-to-world [1, 4, 4], metres, a mask."""

    @classmethod
    def from_pretrained(cls, weights):
        assert weights == "facebook/map-anything-apache"
        return cls()

    def to(self, device):
        return self

    def infer(self, views, **options):
        assert len(views) == 3
        return [
            {
                "depth_z": DEPTH[n][None, ..., None],
                "conf": 1.0 + DEPTH[n][None],
                "mask": ~DOUBT[n][None, ..., None],
                "camera_poses": T[None].astype(np.float32),
                "intrinsics": SMALL.matrix[None],
            }
            for n, T in enumerate(POSES)
        ]


@pytest.fixture
def installed(monkeypatch):
    stand_in(monkeypatch, depth_anything_3={}, depth_anything_3__api={"DepthAnything3": DepthAnything3})
    stand_in(
        monkeypatch,
        mapanything={},
        mapanything__models={"MapAnything": MapAnything},
        mapanything__utils={},
        mapanything__utils__image={"load_images": lambda folder: sorted(__import__("os").listdir(folder))},
    )


@pytest.mark.parametrize(("name", "unit", "metric"), [("depth_anything_3", 0.3, False), ("map_anything", 1.0, True)])
def test_poses_units_and_confidence(installed, name, unit, metric):
    found = make_provider(name).estimate(PICTURES, in_order=True)
    assert found.metric is metric
    for n, T in enumerate(POSES):
        view = found.views[f"p{n}"]
        assert np.allclose(view.T_world_camera[:3, :3], T[:3, :3], atol=1e-5)
        assert np.allclose(view.T_world_camera[:3, 3], T[:3, 3] * unit, atol=1e-5)
        assert view.intrinsics.fx == pytest.approx(CAMERA.fx)
        assert view.intrinsics.cx == pytest.approx(CAMERA.cx)
        depth = view.believed()
        assert not depth[DOUBT[n]].any()
        seen = depth > 0
        assert seen.mean() > 0.5
        assert np.allclose(depth[seen], DEPTH[n][seen] * unit, rtol=1e-5)


def test_a_missing_network_is_named_with_its_command():
    for name, command in (("depth_anything_3", "pip install depth-anything-3"), ("map_anything", "pip install git")):
        with pytest.raises(MissingExtraError, match=command):
            make_provider(name).check()


def test_confidence_without_differences_believes_all():
    assert believed(np.ones((1, 2, 2))).all()
    assert believed(np.arange(10.0).reshape(1, 2, 5)).sum() == 8


def test_windows_cover_everything_and_share_views():
    for count in (2, 8, 9, 13, 14, 40):
        found = windows(count, 8, 3)
        assert sorted({n for each in found for n in each}) == list(range(count))
        assert all(len(set(a) & set(b)) >= 3 for a, b in itertools.pairwise(found))


def test_windows_are_laid_onto_each_other():
    rest = np.linalg.inv(POSES[1])
    before = {f"p{n}": EstimatedView(intrinsics=CAMERA, T_world_camera=POSES[n]) for n in (0, 1)}
    found = {f"p{n}": EstimatedView(intrinsics=CAMERA, T_world_camera=rest @ POSES[n]) for n in (1, 2)}
    assert np.allclose(laid_onto(found, before), POSES[1])
    assert np.array_equal(laid_onto(found, {}), np.eye(4))


def test_the_embedded_network_measures_a_procedural_room():
    room = make_room(7)
    frames = room.frames[:10]
    found = make_provider("rooms_geometry").estimate([held(f.colour(), f.name) for f in frames], in_order=True)
    assert found.metric
    ratios, guesses = [], []
    for frame in frames:
        view = found.views[frame.name]
        depth, real = view.believed(), frame.depth()
        ok = (depth > 0) & (real > 0)
        ratios.append(depth[ok] / real[ok])
        guesses.append(np.median(real[ok]) / real[ok])
    ratio = np.concatenate(ratios)
    assert 0.85 < np.median(ratio) < 1.15
    guess = np.concatenate(guesses)  # one distance for the whole picture, the best there is
    share, guessed = (np.mean(np.maximum(r, 1 / r) < 1.25) for r in (ratio, guess))
    assert share > 0.7
    assert share > guessed + 0.1
