import numpy as np
import pytest

from stereopsis.geometry import TriangleMesh, join_meshes

SQUARE = np.array([[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]], dtype=np.float64)
FACES = np.array([[0, 1, 2], [0, 2, 3]])


def square(colour=(10, 20, 30), **changes):
    return TriangleMesh.from_faces(SQUARE, FACES, np.tile(np.array(colour, np.uint8), (4, 1)), **changes)


def test_faces_must_name_existing_finite_vertices():
    grey = np.zeros((4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"faces name vertices 0 to 4, but there are 4 \(0 to 3\)"):
        TriangleMesh.from_faces(SQUARE, np.array([[0, 1, 4]]), grey)
    with pytest.raises(ValueError, match="faces name vertices -1"):
        TriangleMesh.from_faces(SQUARE, np.array([[0, 1, -1]]), grey)
    bad = SQUARE.copy()
    bad[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        TriangleMesh.from_faces(bad, FACES, grey)
    assert len(TriangleMesh.from_faces(bad, FACES[:1], grey)) == 1  # a vertex that no face uses may be anything


def test_samples_are_even_and_always_the_same():
    wide = TriangleMesh(
        triangles=np.concatenate([square().triangles, square().triangles[:1] * 0.1 + [5.0, 0.0, 0.0]]),
        colours=np.zeros((3, 3, 3), np.uint8),
        labels=np.arange(3),
    )
    points = wide.sample(40_000)
    np.testing.assert_array_equal(points, wide.sample(40_000))
    small = points[:, 0] > 4
    assert small.mean() == pytest.approx(0.02 / 4.02, rel=0.01)  # by area
    counts = np.histogram2d(*points[~small, :2].T, bins=10, range=[[0, 2], [0, 2]])[0]
    assert counts.min() > 0.95 * counts.mean()  # a random sample would deviate by 5 % (one sigma) in each cell
    assert (points[:, 2] == 0).all()
    with pytest.raises(ValueError, match="no triangle with an area"):
        TriangleMesh(
            triangles=np.zeros((1, 3, 3)), colours=np.zeros((1, 3, 3), np.uint8), labels=np.zeros(1, int)
        ).sample(5)


def test_colours_interpolate_and_textures_are_looked_up():
    mesh = square()
    corner = np.array([[[200, 0, 0], [0, 100, 0], [0, 0, 50]]], np.uint8)
    one = TriangleMesh(triangles=mesh.triangles[:1], colours=corner, labels=np.zeros(1, int))
    weights = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]], np.float32)
    np.testing.assert_array_equal(one.colours_at(np.zeros(3, int), weights), [[200, 0, 0], [100, 50, 0], [40, 30, 25]])
    # A texture of 2 x 2 pixels on the square (2 m wide): v points up, so its top row lies at large y.
    image = np.array([[[1, 1, 1], [2, 2, 2]], [[3, 3, 3], [4, 4, 4]]], np.uint8)
    textured = TriangleMesh(
        triangles=mesh.triangles,
        colours=mesh.colours,
        labels=mesh.labels,
        uv=mesh.triangles[..., :2] / 2,
        texture=np.zeros(2, int),
        textures=(image,),
    )
    # In the first triangle (0,0) (2,0) (2,2) the weights w give the point (2 w1 + 2 w2, 2 w2).
    low_left, low_right, high_right = [0.65, 0.25, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]
    seen = textured.colours_at(np.zeros(3, int), np.array([low_left, low_right, high_right], np.float32))
    np.testing.assert_array_equal(seen[:, 0], [3, 4, 2])
    moved = TriangleMesh(**{**vars(textured), "uv": textured.uv + np.array([3.0, -7.0])})  # repeats
    np.testing.assert_array_equal(
        moved.colours_at(np.zeros(3, int), np.array([low_left, low_right, high_right], np.float32)), seen
    )
    both = join_meshes([mesh, textured, textured])
    assert both.texture.tolist() == [-1, -1, 0, 0, 1, 1]
    assert len(both.textures) == 2
    picked = both.colours_at(np.array([0, 2, 4]), np.array([low_right] * 3, np.float32))
    np.testing.assert_array_equal(picked, [[10, 20, 30], [4, 4, 4], [4, 4, 4]])
    assert join_meshes([mesh, mesh]).uv is None
    with pytest.raises(ValueError, match="no meshes"):
        join_meshes([])


def test_labels_and_transforms():
    T = np.eye(4)
    T[:3, 3] = 1, 2, 3
    moved = square(labels=np.array([4, 5])).transformed(T)
    np.testing.assert_array_equal(moved.triangles[0], [[1, 2, 3], [3, 2, 3], [3, 4, 3]])
    assert moved.labels.tolist() == [4, 5]
    assert moved.labelled(9).labels.tolist() == [9, 9]
