"""Conditions that know the camera: rays, codes of places, and who is told what."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from stereopsis.geometry.camera import Intrinsics
from stereopsis.geometry.camera import camera_rays as exact_rays
from stereopsis.objectives import CrossView
from stereopsis.objectives.pose import DEPTHS, PLACE_FEATURES, PLACE_WAVES, CameraConditioning, camera_rays, waves


def posed(objective):
    """The objective with everything that starts at zero made to count."""
    torch.manual_seed(3)
    for mlp in (objective.pose.query_rays, objective.pose.key_rays):
        torch.nn.init.normal_(mlp[2].weight, std=0.3)
    return objective


@pytest.fixture
def scene(make_batch, make_outputs, make_denoiser):
    objective = posed(CrossView(make_denoiser(dtype=torch.float64), conditioning="pose", ratio=0.4, repeats=1))
    batch = make_batch((5,), dtype=torch.float64)
    hidden = torch.tensor([False, True, False, True, False])
    return objective, batch, make_outputs(batch, hidden=hidden, dtype=torch.float64)


def conditions(objective, batch, outputs):
    """[hidden views cells width], in order of the views."""
    found = {}

    def keep(noisy, t, condition, kind):
        found["z"] = condition
        return torch.zeros_like(noisy)

    objective.denoiser.forward, forward = keep, objective.denoiser.forward
    try:
        objective.reconstruct(outputs, batch, generator=torch.Generator().manual_seed(0), steps=1)
    finally:
        objective.denoiser.forward = forward
    return found["z"]


def test_rays_are_those_of_the_geometry_package(make_batch):
    """A grid as fine as the image: one ray through each pixel centre."""
    batch = make_batch((3,))
    origins, directions = camera_rays(batch.cameras, batch.intrinsics, (8, 6), (8, 6))
    for view in range(3):
        intrinsics = Intrinsics.from_matrix(batch.intrinsics[view].numpy(), 6, 8)
        exact = exact_rays(intrinsics, batch.cameras[view].numpy(), unit=True)
        np.testing.assert_allclose(origins[view], exact.origin, atol=1e-6)
        np.testing.assert_allclose(directions[view].reshape(8, 6, 3), exact.directions, atol=1e-5)


def test_one_cell_looks_through_the_middle_of_the_image():
    K = torch.tensor([[[10.0, 0.0, 4.0], [0.0, 10.0, 3.0], [0.0, 0.0, 1.0]]])
    _, direction = camera_rays(torch.eye(4)[None], K, (6, 8), (1, 1))
    torch.testing.assert_close(direction[0, 0], torch.tensor([0.0, 0.0, 1.0]))
    _, two = camera_rays(torch.eye(4)[None], K, (6, 8), (1, 2))
    torch.testing.assert_close(two[0, :, 0] / two[0, :, 2], torch.tensor([-0.2, 0.2]))  # (2 - 4) / 10, (6 - 4) / 10


def test_codes_of_places_compare_by_distance():
    a, b, shift = torch.randn(3, 50, 3, dtype=torch.float64).unbind(0)
    here = (waves(a, PLACE_WAVES) * waves(b, PLACE_WAVES)).sum(-1)
    there = (waves(a + shift, PLACE_WAVES) * waves(b + shift, PLACE_WAVES)).sum(-1)
    torch.testing.assert_close(here, there)
    assert waves(a, PLACE_WAVES).square().sum(-1).allclose(torch.tensor(PLACE_FEATURES / 2, dtype=torch.float64))
    expected = sum(torch.cos(2 * math.pi * (a - b) / w).sum(-1) for w in PLACE_WAVES)
    torch.testing.assert_close(here, expected)


def test_an_untrained_query_looks_along_its_ray():
    """Keys at points on the ray outweigh keys elsewhere in the room, whatever the random map."""
    torch.manual_seed(0)
    module = CameraConditioning(128, 4)
    K = torch.tensor([[[4.0, 0.0, 4.0], [0.0, 4.0, 4.0], [0.0, 0.0, 1.0]]])
    (origin,), (directions,) = camera_rays(torch.eye(4)[None], K, (8, 8), (1, 1))
    on_ray = origin + torch.linspace(1, 4, 7)[:, None] * directions
    behind, beside = on_ray * torch.tensor([1.0, 1.0, -1.0]), on_ray[:, [2, 0, 1]]
    code = torch.stack([waves(origin + d * directions, PLACE_WAVES) for d in DEPTHS]).mean(0)
    query = module.places(code).view(4, 32)
    logits = [(module.places(waves(p, PLACE_WAVES)).view(7, 4, 32) * query).sum(-1) for p in (on_ray, behind, beside)]
    share = torch.cat(logits).div(math.sqrt(32)).softmax(0).view(3, 7, 4).sum(1).mean(-1)
    assert share[0] > 0.6


def test_every_hidden_view_has_its_own_condition(scene):
    objective, batch, outputs = scene
    z = conditions(objective, batch, outputs)
    assert z.shape == (2, 4, 8)
    assert not torch.allclose(z[0], z[1], atol=1e-3)
    batch.cameras[3], batch.intrinsics[3] = batch.cameras[1], batch.intrinsics[1]
    same = conditions(objective, batch, outputs)
    torch.testing.assert_close(same[0], z[0])
    torch.testing.assert_close(same[1], z[0])


def test_a_target_s_camera_moves_its_own_condition_only(scene):
    objective, batch, outputs = scene
    z = conditions(objective, batch, outputs)
    cameras = batch.cameras.clone()
    cameras[3, :3, 3] += 0.5
    moved = conditions(objective, dataclasses.replace(batch, cameras=cameras), outputs)
    torch.testing.assert_close(moved[0], z[0])
    assert not torch.allclose(moved[1], z[1], atol=1e-3)


def test_where_visible_tokens_lie_matters_and_what_hidden_ones_saw_does_not(scene):
    objective, batch, outputs = scene
    z = conditions(objective, batch, outputs)
    elsewhere = batch.coordinates + 1.0
    valid, hidden = batch.coordinates_valid[..., None], outputs.hidden[:, None, None, None]
    unseen = torch.where(hidden | ~valid, elsewhere, batch.coordinates)
    unseen = torch.where(~valid, torch.nan, unseen)  # points that nobody saw may hold anything
    assert conditions(objective, dataclasses.replace(batch, coordinates=unseen), outputs).equal(z)
    seen = torch.where(hidden, batch.coordinates, elsewhere)
    moved = conditions(objective, dataclasses.replace(batch, coordinates=seen), outputs)
    assert not torch.allclose(moved, z, atol=1e-3)


def test_without_depth_tokens_are_placed_by_their_rays(scene):
    objective, batch, outputs = scene
    blind = dataclasses.replace(batch, coordinates_valid=torch.zeros_like(batch.coordinates_valid))
    z = conditions(objective, blind, outputs)
    cameras = batch.cameras.clone()
    cameras[0, :3, 3] += 1.0
    moved = conditions(objective, dataclasses.replace(blind, cameras=cameras), outputs)
    assert not torch.allclose(moved, z, atol=1e-3)


def test_repeats_share_their_view_s_condition(scene):
    objective, batch, outputs = scene
    z = conditions(objective, batch, outputs)
    objective.repeats = 3
    told = {}
    objective.denoiser.forward = lambda noisy, t, condition, kind: told.setdefault("z", condition)[..., :4] * 0 + noisy
    objective.loss(outputs, batch, torch.Generator().manual_seed(0))
    assert told["z"].equal(z.repeat(3, 1, 1))


def test_its_parameters_exist_only_where_they_are_asked_for(make_denoiser):
    denoiser = make_denoiser()
    released = set(denoiser.state_dict())
    for conditioning in ("released", "masked_positions"):
        assert set(CrossView(denoiser, conditioning=conditioning).state_dict()) == {"mask_token"}
    names = set(CrossView(denoiser, conditioning="pose").state_dict())
    assert {name.split(".")[0] for name in names} == {"mask_token", "pose"}
    assert set(denoiser.state_dict()) == released


def test_rays_stay_exact_under_autocast_and_the_denoiser_may_be_rounded(make_batch, make_outputs, make_denoiser):
    batch = make_batch((4, 5))
    arguments = (batch.cameras, batch.intrinsics, (8, 8), (2, 2))
    hidden = torch.tensor([False, False, False, True, False, False, False, True, True])
    objective, outputs = CrossView(make_denoiser(), conditioning="pose"), make_outputs(batch, hidden=hidden)
    exact = objective.loss(outputs, batch, torch.Generator().manual_seed(0)).sum
    for compute_dtype, tolerance in (("float32", 0.0), ("autocast", 0.05)):
        denoiser = objective.denoiser
        denoiser.config = dataclasses.replace(denoiser.config, compute_dtype=compute_dtype)
        with torch.autocast("cpu", torch.bfloat16):
            assert camera_rays(*arguments)[1].dtype == torch.float32
            rounded = objective.loss(outputs, batch, torch.Generator().manual_seed(0)).sum
        assert rounded.dtype == torch.float32
        assert rounded.item() == pytest.approx(exact.item(), rel=tolerance, abs=0)
        rounded.backward()
