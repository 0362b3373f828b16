"""The 3D position encoding against a slow reading of its rule."""

import math

import pytest
import torch

from stereopsis.models.position import PositionEncoding3D

LOW, HIGH = (-15.0, -15.0, -5.0), (15.0, 15.0, 5.0)


def _slow(point: list[float], dim: int) -> list[float]:
    """One feature after the other, in double precision (docs/papers.md)."""
    number = dim // 3
    values = []
    for value, low, high in zip(point, LOW, HIGH, strict=True):
        step = round((min(max(value, low), high) - low) / 0.1)
        for i in range(number):
            angle = step / 10000 ** (2 * (i // 2) / number)
            values.append(math.sin(angle) if i % 2 == 0 else math.cos(angle))
    return values + [0.0] * (dim - len(values))


def _points(number: int) -> torch.Tensor:
    """Points in and around the room; never near the middle between two steps, where rounding is anybody's guess."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(-200, 200, (number, 3), generator=generator)
    return (steps + torch.rand(number, 3, generator=generator) * 0.8 - 0.4) * 0.1


@pytest.mark.parametrize("dim", [48, 49, 50, 51, 52, 9, 3])  # features per axis: even, odd (51, 9, 3), remainders
def test_encoding_equals_the_slow_rule(dim):
    points = _points(60)
    assert (points.abs() > torch.tensor(HIGH)).any(), "clamping must be exercised"
    expected = torch.tensor([_slow(point, dim) for point in points.tolist()])
    torch.testing.assert_close(PositionEncoding3D(dim)(points), expected, atol=2e-4, rtol=0)


def test_hand_values():
    """The lowest corner is step 0 on every axis: sines 0, cosines 1; 0.1 m further is step 1."""
    encoding = PositionEncoding3D(12)
    assert encoding(torch.tensor(LOW)).tolist() == [0, 1] * 6
    step = encoding(torch.tensor([-14.9, -15.0, -5.0]))
    expected = [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)]
    assert step[:4].tolist() == pytest.approx(expected, abs=1e-4)
    assert step[4:].tolist() == [0, 1] * 4


def test_points_outside_are_clamped_and_near_points_share_a_step():
    encoding = PositionEncoding3D(48)
    outside, corner = torch.tensor([99.0, -99.0, 7.0]), torch.tensor([15.0, -15.0, 5.0])
    assert torch.equal(encoding(outside), encoding(corner))
    assert torch.equal(encoding(torch.tensor([1.04, 2.0, 0.0])), encoding(torch.tensor([0.96, 2.0, 0.0])))
    assert not torch.equal(encoding(torch.tensor([1.06, 2.0, 0.0])), encoding(torch.tensor([1.04, 2.0, 0.0])))


def test_the_remainder_is_zero_and_scale_scales():
    points = _points(5)
    plain = PositionEncoding3D(50)(points)
    assert (plain[:, 48:] == 0).all()
    torch.testing.assert_close(PositionEncoding3D(50, scale=0.25)(points), plain / 4)
    assert list(PositionEncoding3D(50).parameters()) == []
    assert PositionEncoding3D(48)(torch.zeros(2, 3, 4, 3)).shape == (2, 3, 4, 48)
