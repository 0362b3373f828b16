"""Depth Anything 3 through its public interface, played by a small module."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from stereopsis.errors import CheckpointError, MissingExtraError, RecipeError
from stereopsis.teachers.depth_anything3 import DepthAnything3Teacher
from stereopsis.teachers.feature_teachers import load_feature_teacher
from stereopsis.teachers.features import TeacherViews


class DepthAnything3(torch.nn.Module):
    """Mean colour of each 14 px patch, and in a fourth channel the layer that was asked for."""

    def __init__(self, model_name="da3-large"):
        super().__init__()
        self.model_name = model_name
        self.bias = torch.nn.Parameter(torch.zeros(1))
        self.calls = []

    @classmethod
    def from_pretrained(cls, source):
        if source == "nobody/nothing":
            raise OSError("no such repository")
        return cls("homemade" if source == "someone/homemade" else "da3-base")

    def inference(self, image, *, export_feat_layers, process_res, process_res_method, ref_view_strategy):
        height, width = image[0].shape[:2]
        scale = process_res / max(height, width)
        rows, cols = (max(round(side * scale / 14), 1) for side in (height, width))
        self.calls.append(
            SimpleNamespace(size=(height, width), side=process_res, how=(process_res_method, ref_view_strategy))
        )
        pixels = torch.from_numpy(np.stack(image)).permute(0, 3, 1, 2).float() / 255
        own = torch.nn.functional.adaptive_avg_pool2d(pixels, (rows, cols)).permute(0, 2, 3, 1) + self.bias
        aux = {
            f"feat_layer_{k}": torch.cat([own, torch.full_like(own[..., :1], k)], dim=-1).detach().numpy()
            for k in export_feat_layers
        }
        return SimpleNamespace(depth=None, aux=aux)


@pytest.fixture
def package(monkeypatch):
    """`depth_anything_3.api` for a test's time."""
    api = ModuleType("depth_anything_3.api")
    api.DepthAnything3 = DepthAnything3
    monkeypatch.setitem(sys.modules, "depth_anything_3", ModuleType("depth_anything_3"))
    monkeypatch.setitem(sys.modules, "depth_anything_3.api", api)


def views_of(images, fx=100.0, cells=(4, 6)):
    number, _, height, width = images.shape
    return TeacherViews(
        images=images,
        points=torch.zeros(number, height, width, 3),
        points_valid=torch.zeros(number, height, width, dtype=torch.bool),
        T_aligned_camera=torch.eye(4).expand(number, 4, 4),
        rows=cells[0],
        cols=cells[1],
        names=tuple(f"v{i}" for i in range(number)),
        scene_id="scene",
        intrinsics=torch.tensor([[fx, 0, 0], [0, 100.0, 0], [0, 0, 1]]).expand(number, 3, 3),
    )


def pictures(number, height, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 3, height, width), generator=generator, dtype=torch.uint8)


def test_features_of_a_layer_pooled_to_the_cells(package):
    teacher = load_feature_teacher("da3:depth-anything/DA3-BASE")
    assert (teacher.layer, teacher.side, teacher.channels, teacher.name) == (11, 504, 4, "da3-DA3-BASE")
    images = pictures(2, 336, 504)
    result = teacher.encode(views_of(images))
    expected = torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, (4, 6)).permute(0, 2, 3, 1)
    torch.testing.assert_close(result.features[..., :3], expected)
    assert (result.features[..., 3] == 11).all()
    assert result.valid.all()
    assert teacher.module.calls[-1].how == ("upper_bound_resize", "first")


def test_squeezed_frames_are_stretched_back(package):
    teacher = load_feature_teacher("da3:depth-anything/DA3-BASE@size=56")
    teacher.encode(views_of(pictures(1, 96, 96), fx=75.0))
    assert teacher.module.calls[-1].size == (42, 56)
    assert teacher.module.calls[-1].side == 56


def test_options_and_fingerprint(package):
    specs = ["da3:a/b", "da3:a/b@5", "da3:a/b@size=56"]
    assert len({load_feature_teacher(spec).fingerprint for spec in specs}) == 3
    assert load_feature_teacher("da3:a/b@11").fingerprint == load_feature_teacher("da3:a/b").fingerprint
    assert load_feature_teacher("da3:someone/homemade@3").layer == 3
    with pytest.raises(RecipeError, match=r"'homemade' is not known here.*name one: 'da3:someone/homemade@23'"):
        load_feature_teacher("da3:someone/homemade")
    with pytest.raises(RecipeError, match="counted from 0, so there is no layer -1"):
        load_feature_teacher("da3:a/b@-1")
    with pytest.raises(RecipeError, match="input cannot be 60 px; use size=56"):
        load_feature_teacher("da3:a/b@size=60")
    with pytest.raises(CheckpointError, match="cannot load Depth Anything 3 from 'nobody/nothing'"):
        load_feature_teacher("da3:nobody/nothing")


def test_another_interface_is_explained():
    class Older(DepthAnything3):
        def inference(self, image, *, export_feat_layers):
            raise AssertionError

    with pytest.raises(RecipeError, match=r"does not export features as expected.*'ref_view_strategy'"):
        DepthAnything3Teacher(Older(), layer=11)

    class Flat(DepthAnything3):
        def inference(self, image, **options):
            return SimpleNamespace(aux={"feat_layer_11": np.zeros((1, 20, 4))})

    with pytest.raises(RecipeError, match=r"gave features \[1, 20, 4\] for 1 views"):
        DepthAnything3Teacher(Flat(), layer=11)


@pytest.mark.skipif("depth_anything_3" in sys.modules, reason="the package is here")
def test_the_missing_package_is_named():
    with pytest.raises(MissingExtraError, match=r"'da3' needs the package 'depth_anything_3'.*pip install git\+https"):
        load_feature_teacher("da3:depth-anything/DA3-LARGE")
