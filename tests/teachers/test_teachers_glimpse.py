"""Thumbnails tell the real kitchen's neighbouring frames and crops apart; they are what guards a cache."""

import dataclasses

import pytest
import torch

from stereopsis.data.views import cell_coordinates, decode_views
from stereopsis.scenes import open_scene
from stereopsis.teachers.glimpse import Glimpse, thumbnails


@pytest.fixture(scope="module")
def kitchen(shared_data):
    folder = shared_data / "seven_scenes_redkitchen"
    if not folder.is_dir():
        pytest.skip(f"no capture at {folder}")
    return open_scene(folder)


def glimpse(scene, indices, **options) -> Glimpse:
    views = decode_views(scene, indices, size=96, **options)
    cells = cell_coordinates(views, 4, 4)
    return Glimpse.of(views.names, views.images, views.cameras, views.intrinsics, cells.coordinates, cells.valid)


def test_no_two_neighbouring_frames_pass_for_each_other(kitchen):
    seen = glimpse(kitchen, range(12))
    assert seen.difference(seen, geometry=True) is None
    for i in range(11):
        other = dataclasses.replace(seen.select([i + 1]), names=(seen.names[i],))
        assert "another picture" in str(seen.select([i]).difference(other, geometry=False))


def test_crop_and_squash_are_different_pictures(kitchen):
    crop, squash = glimpse(kitchen, [0, 5]), glimpse(kitchen, [0, 5], fit="squash")
    assert "another picture" in str(crop.difference(squash, geometry=True))


def test_thumbnails_are_means():
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[0, 1, 2:4, 6:8] = torch.tensor([[10, 20], [30, 41]], dtype=torch.uint8)
    thumbs = thumbnails(image)
    assert thumbs.shape == (1, 3, 16, 16)
    assert thumbs[0, 1, 1, 3] == 25
    assert thumbs.sum() == 25
