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


class Network:
    """What the three others share: from_pretrained, to, eval."""

    @classmethod
    def from_pretrained(cls, weights):
        return cls()

    def to(self, device):
        return self

    def eval(self):
        return self


def at(images, values):
    """Values at the size of the pictures that the network was given, the nearest."""
    rows, cols = images.shape[-2:]
    row = ((np.arange(rows) + 0.5) * values.shape[1] / rows).astype(int)
    col = ((np.arange(cols) + 0.5) * values.shape[2] / cols).astype(int)
    return values[:, row][:, :, col]


def exact(images):
    """z-depth of every pixel that the network was given, cast through it, and the camera of that size."""
    camera = CAMERA.resized(images.shape[-1], images.shape[-2])
    return np.stack([cast(T, camera)[1] for T in POSES]), camera


class Vggt(Network):
    """Pose encodings, which its own function turns into world-to-camera [1, N, 3, 4]; confidence from 1 upwards."""

    def __call__(self, images):
        assert images.shape[:3] == (1, 3, 3)
        depth, _ = exact(images)
        doubt = at(images, DOUBT)
        conf = np.where(doubt, 1.0, 3.0) + depth * 1e-3
        return {"pose_enc": "encoded", "depth": depth[None, ..., None] * 0.3, "depth_conf": conf[None]}


def pose_encoding_to_extri_intri(encoding, size):
    assert encoding == "encoded"
    extrinsics = np.stack([np.linalg.inv(T)[:3] for T in POSES])
    extrinsics[:, :, 3] *= 0.3
    return extrinsics[None], np.stack([CAMERA.resized(size[1], size[0]).matrix] * 3)[None]


class Pi3X(Network):
    """Camera-to-world, points in each camera's frame, confidence as logits."""

    def __call__(self, images):
        depth, camera = exact(images)
        u, v = np.meshgrid(np.arange(camera.width) + 0.5 - camera.cx, np.arange(camera.height) + 0.5 - camera.cy)
        points = np.stack([u / camera.fx * depth, v / camera.fy * depth, depth], axis=-1) * 0.3
        poses = np.stack(POSES)
        poses[:, :3, 3] *= 0.3
        conf = np.where(at(images, DOUBT), -4.0, -1.0)
        return {"local_points": points[None], "camera_poses": poses[None], "conf": conf[None, ..., None]}


class MoGeModel(Network):
    """One picture at a time, intrinsics in shares of its sides, infinite depth outside of its mask."""

    def __init__(self):
        self.count = 0

    def infer(self, image):
        depth, doubt = exact(image[None])[0][self.count], at(image[None], DOUBT)[self.count]
        self.count += 1
        K = CAMERA.matrix / [[CAMERA.width], [CAMERA.height], [1]]
        return {"depth": np.where(doubt, np.inf, depth * 0.3), "mask": ~doubt, "intrinsics": K}


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
    stand_in(monkeypatch, vggt={}, vggt__models={}, vggt__models__vggt={"VGGT": Vggt}, vggt__utils={})
    stand_in(monkeypatch, vggt__utils__pose_enc={"pose_encoding_to_extri_intri": pose_encoding_to_extri_intri})
    stand_in(monkeypatch, pi3={}, pi3__models={}, pi3__models__pi3x={"Pi3X": Pi3X})
    stand_in(monkeypatch, moge={}, moge__model={}, moge__model__v1={"MoGeModel": MoGeModel})


@pytest.mark.parametrize("name", ["vggt", "pi3", "moge"])
def test_networks_that_are_given_tensors(installed, name):
    from stereopsis.providers.registry import PROVIDERS

    provider = PROVIDERS[name]()
    found = provider.estimate(PICTURES, in_order=True)
    assert found.metric is False
    for n, T in enumerate(POSES):
        view = found.views[f"p{n}"]
        if name == "moge":
            assert view.T_world_camera is None
        else:
            assert np.allclose(view.T_world_camera[:3, :3], T[:3, :3], atol=1e-5)
            assert np.allclose(view.T_world_camera[:3, 3], T[:3, 3] * 0.3, atol=1e-5)
        assert view.intrinsics.fx == pytest.approx(CAMERA.fx, rel=1e-3)
        assert view.intrinsics.fy == pytest.approx(CAMERA.fy, rel=1e-3)
        depth = view.believed()
        camera = CAMERA.resized(depth.shape[1], depth.shape[0])
        seen = depth > 0
        assert not depth[: int(depth.shape[0] * 0.18)].any()
        assert seen.mean() > 0.7
        assert np.allclose(depth[seen], cast(T, camera)[1][seen] * 0.3, rtol=1e-4)


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
