import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import check_pose
from stereopsis.scenes.readers.trajectories import (
    Moment,
    associate,
    check_increasing,
    moment_at,
    nearest,
    opencv_from_opengl,
    pose_at,
    pose_from_axis_angle,
    pose_from_quaternion,
    read_trajectory,
)

LINE = "timestamp tx ty tz qx qy qz qw"
HERE = np.zeros(3)


def _quaternion_pose(values):
    return pose_from_quaternion(values[3:], values[:3])


def _trajectory(tmp_path, text):
    file = tmp_path / "groundtruth.txt"
    file.write_text(text)
    return read_trajectory(file, 7, _quaternion_pose, expected=LINE)


finite = st.floats(-5, 5, allow_nan=False)
vectors = arrays(np.float64, 3, elements=finite)
quaternions = arrays(np.float64, 4, elements=finite).filter(lambda q: np.linalg.norm(q) > 0.1)


@given(quaternions, vectors)
@settings(max_examples=50, deadline=None)
def test_quaternions_are_rotated_with_as_by_definition(quaternion, point):
    """q p q* by hand, against the matrix; the sign of a quaternion does not matter."""
    quaternion = quaternion / np.linalg.norm(quaternion)
    pose = pose_from_quaternion(quaternion, point)
    check_pose(pose)
    axis, w = quaternion[:3], quaternion[3]
    turned = point + 2 * w * np.cross(axis, point) + 2 * np.cross(axis, np.cross(axis, point))
    np.testing.assert_allclose(pose[:3, :3] @ point, turned, atol=1e-9)
    np.testing.assert_array_equal(pose[:3, 3], point)
    np.testing.assert_allclose(pose_from_quaternion(-quaternion, point), pose, atol=1e-12)


@given(vectors, vectors)
@settings(max_examples=50, deadline=None)
def test_axis_angle_follows_rodrigues_formula(axis_angle, point):
    pose = pose_from_axis_angle(axis_angle, HERE)
    check_pose(pose)
    angle = np.linalg.norm(axis_angle)
    axis = axis_angle / angle if angle > 0 else np.array([1.0, 0.0, 0.0])
    turned = (
        np.cos(angle) * point + np.sin(angle) * np.cross(axis, point) + (1 - np.cos(angle)) * axis.dot(point) * axis
    )
    np.testing.assert_allclose(pose[:3, :3] @ point, turned, atol=1e-9)
    np.testing.assert_allclose(pose_from_axis_angle(-axis_angle, HERE)[:3, :3], pose[:3, :3].T, atol=1e-12)


def test_quarter_turns_by_hand():
    half = np.sqrt(0.5)
    about_z = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    pose = pose_from_quaternion(np.array([0, 0, half, half]), np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(pose[:3, :3], about_z, atol=1e-12)
    np.testing.assert_allclose(pose_from_axis_angle(np.array([0, 0, np.pi / 2]), HERE)[:3, :3], about_z, atol=1e-12)
    np.testing.assert_array_equal(pose_from_axis_angle(HERE, HERE), np.eye(4))


def test_an_opengl_camera_by_hand():
    """Looking along the world's x axis with the world's z up: OpenGL's axes are right = -y, up = z, back = -x."""
    opengl = np.eye(4)
    opengl[:3, :3] = np.stack([[0, -1, 0], [0, 0, 1], [-1, 0, 0]], axis=1)
    opengl[:3, 3] = 4, 5, 6
    right, down, forward = opencv_from_opengl(opengl)[:3, :3].T
    np.testing.assert_array_equal(right, [0, -1, 0])
    np.testing.assert_array_equal(down, [0, 0, -1])
    np.testing.assert_array_equal(forward, [1, 0, 0])
    np.testing.assert_array_equal(opencv_from_opengl(opengl)[:3, 3], [4, 5, 6])
    np.testing.assert_array_equal(opencv_from_opengl(opencv_from_opengl(opengl)), opengl)


@pytest.mark.parametrize(
    ("quaternion", "message"),
    [([0, 0, 0, 0], "length 0, expected 1"), ([0, 0, 0, 2], "length 2, expected 1"), ([0, 0, np.nan, 1], "NaN or inf")],
)
def test_what_is_no_unit_quaternion(quaternion, message):
    with pytest.raises(ValueError, match=message):
        pose_from_quaternion(np.array(quaternion, dtype=float), HERE)
    with pytest.raises(ValueError, match="NaN or inf"):
        pose_from_axis_angle(np.array([0, np.inf, 0]), HERE)


def test_rounded_quaternions_are_normalised():
    check_pose(pose_from_quaternion(np.array([0.0, 0.0, 0.7071, 0.7071]), HERE))
    check_pose(pose_from_quaternion(np.array([0.0, 0.0, 0.0, 0.995]), HERE))


def test_association_takes_the_closest_pairs_first_and_each_partner_once():
    first = np.array([0.000, 0.010, 1.000, 2.0])
    second = np.array([0.011, 1.019, 1.5, 2.021])
    np.testing.assert_array_equal(associate(first, second, 0.02), [-1, 0, 1, -1])
    np.testing.assert_array_equal(associate(first, np.array([]), 0.02), [-1, -1, -1, -1])


times = st.lists(st.integers(0, 60), max_size=9, unique=True).map(lambda each: np.array(sorted(each)) / 64)


@given(times, times)
@settings(max_examples=60, deadline=None)
def test_association_against_a_slow_reference(first, second):
    """Greedy over all pairs; no two pairs share an image, and no pair that could still be made is left."""
    tolerance = 4 / 64
    partners = associate(first, second, tolerance)
    left, right, expected = set(range(len(first))), set(range(len(second))), {}
    while True:
        open_pairs = [(abs(first[i] - second[j]), i, j) for i in left for j in right]
        if not open_pairs or min(open_pairs)[0] > tolerance:
            break
        _, i, j = min(open_pairs)
        expected[i] = j
        left.remove(i)
        right.remove(j)
    assert {i: j for i, j in enumerate(partners) if j >= 0} == expected


def test_nearest():
    known = np.array([1.0, 2.0, 3.0])
    assert [nearest(known, time, 0.3) for time in (0.6, 0.8, 1.2, 1.5, 1.9, 3.2, 3.4)] == [None, 0, 0, None, 1, 2, None]
    assert nearest(np.array([]), 1.0, 9.0) is None


def test_interpolation_by_hand(tmp_path):
    """A quarter turn about z and two metres along x in 0.1 s: a quarter of it after 25 ms."""
    half = np.sqrt(0.5)
    trajectory = _trajectory(
        tmp_path, f"# comment\n10.0 0 0 0 0 0 0 1\n10.1 2 0 0 0 0 {half} {half}\n11 9 9 9 0 0 0 1\n"
    )
    moment = moment_at(trajectory, 10.025, tolerance=1e-3, max_gap=0.11)
    assert (moment.before, moment.after) == (0, 1)
    pose = pose_at(trajectory, moment)
    np.testing.assert_allclose(pose[:3, 3], [0.5, 0, 0], atol=1e-9)
    c, s = np.cos(np.pi / 8), np.sin(np.pi / 8)
    np.testing.assert_allclose(pose[:3, :3], [[c, -s, 0], [s, c, 0], [0, 0, 1]], atol=1e-9)
    at = moment_at(trajectory, 10.1004, tolerance=1e-3, max_gap=0.11)
    assert at == Moment(before=1, after=1, weight=0.0)
    np.testing.assert_array_equal(pose_at(trajectory, at), trajectory.poses[1])
    outside = [moment_at(trajectory, time, tolerance=1e-3, max_gap=0.11) for time in (9.9, 10.5, 11.1)]
    assert outside == [None, None, None]
    assert moment_at(trajectory, 10.05, tolerance=1e-3, max_gap=0.0) is None


def test_a_faulty_sample_harms_only_those_that_need_it(tmp_path):
    lines = "1.00 0 0 0 0 0 0 1\n1.05 0 0 0 nan 0 0 1\n1.10 0 0 0 0 0 0 1\n1.15 1 0 0 0 0 0 1\n"
    trajectory = _trajectory(tmp_path, lines)
    assert set(trajectory.faults) == {1}
    with pytest.raises(FrameError, match=r"groundtruth.txt, line 2: unusable pose: .*NaN.*on_bad_frame='skip'"):
        pose_at(trajectory, moment_at(trajectory, 1.07, tolerance=1e-3, max_gap=0.1))
    good = pose_at(trajectory, moment_at(trajectory, 1.125, tolerance=1e-3, max_gap=0.1))
    np.testing.assert_allclose(good[:3, 3], [0.5, 0, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "trajectory file is empty; expected lines with timestamp tx"),
        ("# only a comment\n\n", "trajectory file is empty"),
        ("1 0 0 0 0 0 0\n", r"line 1: found 7 numbers, not 8; expected timestamp tx.*correct the line"),
        ("1 0 0 0 0 0 zero 1\n", "line 1: could not convert.*expected timestamp tx"),
        ("2 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", r"line 2: timestamp 1.000000 does not come after 2.000000.*sort"),
        ("1 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "line 2: timestamp 1.000000 does not come after 1.000000.*remove"),
        ("nan 0 0 0 0 0 0 1\n", "line 1: the timestamp is nan, expected seconds"),
    ],
)
def test_a_trajectory_that_cannot_be_read(tmp_path, text, message):
    with pytest.raises(SceneError, match=message) as error:
        _trajectory(tmp_path, text)
    assert "groundtruth.txt" in str(error.value)


def test_absent_binary_and_circular_trajectories(tmp_path):
    file = tmp_path / "groundtruth.txt"
    with pytest.raises(SceneError, match="trajectory file does not exist; expected timestamp"):
        read_trajectory(file, 7, _quaternion_pose, expected=LINE)
    file.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SceneError, match="unreadable trajectory"):
        read_trajectory(file, 7, _quaternion_pose, expected=LINE)
    file.unlink()
    file.symlink_to(file)
    with pytest.raises(SceneError, match="unreadable trajectory"):
        read_trajectory(file, 7, _quaternion_pose, expected=LINE)


def test_increasing_times_pass():
    check_increasing(np.array([1.0, 1.5, 2.0]), ["a", "b", "c"])
