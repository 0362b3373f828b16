"""Depth, point maps, rays and camera poses: values by hand, invariances, what must cost nothing."""

import dataclasses
import math

import pytest
import torch

from stereopsis.data.pack import POINTS, POINTS_VALID
from stereopsis.objectives import CameraPose, DepthHead, PointMap, RayMap
from stereopsis.objectives.camera_pose import relative_poses, rotation_of
from stereopsis.objectives.depth import cell_depths
from stereopsis.objectives.point_map import in_camera


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def with_points(batch):
    batch.targets.update({POINTS: batch.coordinates.clone(), POINTS_VALID: batch.coordinates_valid.clone()})
    return batch


def saying(objective, values):
    """An objective whose heads say the same of every token."""
    for parameter in objective.parameters():
        torch.nn.init.zeros_(parameter)
    objective.head[2].bias.data.copy_(torch.tensor(values))
    return objective


def turned(degrees: float) -> torch.Tensor:
    """About the camera's y axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def moved(batch, seed: int = 3):
    """The same scenes in another aligned frame."""
    torch.manual_seed(seed)
    T = torch.eye(4)
    T[:3, :3], T[:3, 3] = torch.linalg.qr(torch.randn(3, 3)).Q, torch.randn(3)
    targets = dict(batch.targets)
    targets[POINTS] = targets[POINTS] @ T[:3, :3].T + T[:3, 3]
    return dataclasses.replace(batch, cameras=T @ batch.cameras, targets=targets)


def test_depth_by_hand(make_batch, make_outputs):
    batch = with_points(make_batch((1,)))
    batch.cameras[0] = torch.tensor([[1.0, 0, 0, 1], [0, 0, 1, 2], [0, -1, 0, 1.5], [0, 0, 0, 1]])  # looks along +y
    points = batch.targets[POINTS]
    points[0, 0, 0] = torch.tensor([9.0, 5.0, -3.0])  # 3 m ahead, whatever is beside or below
    points[0, 0, 1] = torch.tensor([0.0, 2.5, 0.0])
    points[0, 0, 2] = torch.tensor([0.0, 1.0, 0.0])  # behind the camera: no target
    valid = batch.targets[POINTS_VALID]
    valid[:] = False
    valid[0, 0] = True
    assert cell_depths(batch)[0, 0].tolist() == pytest.approx([3.0, 0.5, -1.0])
    objective = saying(DepthHead(6), [math.log(2.0)])
    loss = objective.loss(make_outputs(batch), batch, generator())
    assert loss.count == objective.count(batch) == 2
    assert loss.sum.item() == pytest.approx(math.log(1.5) + math.log(4.0), rel=1e-5)
    assert loss.metrics["relative_error"] == pytest.approx((1 / 3 + 3.0) / 2, rel=1e-5)


def test_point_map_by_hand(make_batch, make_outputs):
    batch = with_points(make_batch((2,)))
    batch.cameras[:] = torch.eye(4)
    batch.cameras[0, :3, 3] = torch.tensor([1.0, 0.0, 0.0])
    valid, points = batch.targets[POINTS_VALID], batch.targets[POINTS]
    valid[:] = False
    valid[1, 0, 0] = True
    points[1, 0, 0] = torch.tensor([1.0, 3.0, 4.0])
    outputs = make_outputs(batch)
    first = saying(PointMap(6), [0.0, 0.0, 0.0]).loss(outputs, batch, generator())
    assert first.sum.item() == pytest.approx(
        5.0
    )  # (0, 3, 4) in the first view's camera, the second's view though it is
    aligned = saying(PointMap(6, frame="aligned"), [1.0, 3.0, 2.0]).loss(outputs, batch, generator())
    assert aligned.sum.item() == aligned.metrics["metres"] == pytest.approx(2.0)


def test_points_in_a_camera_undo_its_pose(make_batch):
    batch = make_batch((3,))
    local = torch.randn(3, 2, 3, 3)
    there = torch.einsum("vij,vrcj->vrci", batch.cameras[:, :3, :3], local) + batch.cameras[:, None, None, :3, 3]
    torch.testing.assert_close(in_camera(there, batch.cameras), local, atol=1e-5, rtol=1e-5)


def test_rays_by_hand(make_batch, make_outputs):
    batch = make_batch((2,))
    batch.cameras[:] = torch.eye(4)
    batch.cameras[1, :3, 3] = torch.tensor([0.0, 3.0, 4.0])
    batch = dataclasses.replace(
        batch, intrinsics=torch.tensor([[1e6, 0, 4.0], [0, 1e6, 4.0], [0, 0, 1]]).repeat(2, 1, 1)
    )
    objective = saying(RayMap(6, origin=2.0), [0.0, 0.0, 9.0, 0.0, 0.0, 0.0])  # straight ahead, any length
    loss = objective.loss(make_outputs(batch), batch, generator())
    assert loss.count == objective.count(batch) == 12
    assert loss.sum.item() == pytest.approx(2.0 * 5.0 * 6, rel=1e-4)
    assert loss.metrics["metres"] == pytest.approx(2.5, rel=1e-5)
    across = saying(RayMap(6), [5.0, 0.0, 0.0, 0.0, 0.0, 0.0]).loss(make_outputs(batch), batch, generator())
    assert across.sum.item() == pytest.approx(12 * 2**0.5 + 5.0 * 6, rel=1e-4)
    assert across.metrics["degrees"] == pytest.approx(90.0, abs=0.01)


def test_camera_pose_by_hand(make_batch, make_outputs):
    batch = make_batch((2, 1))
    batch.cameras[:] = torch.eye(4)
    batch.cameras[1, :3, :3] = turned(60.0)
    batch.cameras[1, :3, 3] = torch.tensor([0.0, 0.6, 0.8])
    objective = saying(CameraPose(6, translation=3.0), [0.0] * 9)  # "as the first one"
    loss = objective.loss(make_outputs(batch), batch, generator())
    assert loss.count == objective.count(batch) == 1  # first views are not asked about
    assert loss.sum.item() == pytest.approx(2 * 2**0.5 * math.sin(math.radians(30)) + 3.0, rel=1e-5)
    assert loss.metrics["degrees"] == pytest.approx(60.0, rel=1e-4)
    assert loss.metrics["metres"] == pytest.approx(1.0, rel=1e-5)


def test_the_right_pose_costs_nothing(make_batch, make_outputs):
    batch = make_batch((2,))
    relative = relative_poses(batch.cameras[:1], batch.cameras[1:])[0]
    if torch.det(relative[:3, :3]) < 0:
        batch.cameras[1, :3, 0] *= -1  # the fixture's cameras may be mirrored
        relative = relative_poses(batch.cameras[:1], batch.cameras[1:])[0]
    six = torch.cat([relative[:3, 0], relative[:3, 1]]) - torch.tensor([1.0, 0, 0, 0, 1.0, 0])
    objective = saying(CameraPose(6), [*six.tolist(), *relative[:3, 3].tolist()])
    assert objective.loss(make_outputs(batch), batch, generator()).sum.item() == pytest.approx(0.0, abs=1e-5)


def test_six_numbers_make_rotations():
    torch.manual_seed(0)
    R = rotation_of(torch.randn(50, 6))
    torch.testing.assert_close(R @ R.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(50), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotation_of(torch.zeros(1, 6))[0], torch.eye(3))


@pytest.mark.parametrize("kind", [DepthHead, PointMap, RayMap, CameraPose])
def test_what_pictures_tell_does_not_depend_on_the_aligned_frame(kind, make_batch, make_outputs):
    batch = with_points(make_batch((3, 2)))
    torch.manual_seed(1)
    objective, outputs = kind(6), make_outputs(batch)
    one, other = (objective.loss(outputs, each, generator()) for each in (batch, moved(batch)))
    torch.testing.assert_close(one.sum, other.sum, atol=1e-3, rtol=1e-4)
