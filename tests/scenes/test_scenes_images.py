import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stereopsis.errors import FrameError, SceneError
from stereopsis.scenes.images import (
    encode_colour,
    encode_depth,
    encode_mask,
    read_colour,
    read_depth,
    read_header,
    read_mask,
)

ANY_DEPTH = st.one_of(st.floats(-1.0, 80.0, width=32), st.floats(width=32))
SAME_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def write_colour(path, pixels):
    path.write_bytes(encode_colour(pixels, path.suffix))
    return path


def write_depth(path, depth, **options):
    path.write_bytes(encode_depth(depth, **options))
    return path


def _photo(height: int = 48, width: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    bands = [np.sin(rows / 7 + band) * np.cos(columns / 9 - band) for band in range(3)]
    return (127 + 100 * np.stack(bands, axis=-1)).astype(np.uint8)


def _refused(error: pytest.ExceptionInfo, path: Path, *words: str) -> None:
    """The message names the file, and holds what was found, expected and to be done."""
    message = str(error.value)
    assert str(path) in message
    for word in words:
        assert word in message, message


def test_depth_by_hand(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 1000], [65535, 2345], [1, 65534]], dtype=np.uint16)).save(file)
    depth = read_depth(file)
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, np.float32([[0, 1], [0, 2.345], [0.001, 65.534]]))
    other = read_depth(file, scale=5000.0, invalid=(0, 1000))
    np.testing.assert_allclose(other, [[0, 0], [13.107, 0.469], [0.0002, 13.1068]], rtol=1e-6)


def test_decoded_arrays_may_be_changed(tmp_path):
    write_colour(tmp_path / "c.png", _photo())
    write_depth(tmp_path / "d.png", np.ones((4, 5), dtype=np.float32))
    assert read_colour(tmp_path / "c.png").flags.writeable
    assert read_depth(tmp_path / "d.png").flags.writeable


@given(metres=st.lists(ANY_DEPTH, min_size=1, max_size=40))
@SAME_FILE
def test_depth_is_rounded_to_the_nearest_millimetre_or_invalid(tmp_path, metres):
    depth = np.array([metres], dtype=np.float32)
    (tmp_path / "d.png").write_bytes(encode_depth(depth))
    back = read_depth(tmp_path / "d.png")
    inside = (depth > 0.0005) & (depth < 65.5344)
    assert np.abs(back[inside] - depth[inside]).max(initial=0.0) <= 0.0005 + 4e-6  # half a unit + float32 at 65 m
    assert not back[~(inside | ((depth > 0.0004) & (depth < 65.5346)))].any()


@given(units=st.integers(1, 65534))
@SAME_FILE
def test_whole_millimetres_survive_exactly(tmp_path, units):
    depth = np.full((1, 1), units, dtype=np.uint16).astype(np.float32) / np.float32(1000)
    (tmp_path / "d.png").write_bytes(encode_depth(depth))
    assert read_depth(tmp_path / "d.png")[0, 0] == depth[0, 0]


def test_depth_in_other_units(tmp_path):
    write_depth(tmp_path / "d.png", np.full((2, 2), 1.00013, dtype=np.float32), scale=5000.0)
    np.testing.assert_allclose(read_depth(tmp_path / "d.png", scale=5000.0), 1.0002, atol=1e-6)


def test_png_colour_is_exact_and_jpeg_close(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (31, 17, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_colour(write_colour(tmp_path / "n.png", noise)), noise)
    photo = _photo()
    jpeg = read_colour(write_colour(tmp_path / "p.jpg", photo))
    assert np.mean((jpeg.astype(float) - photo) ** 2) < 255**2 / 10**4.2  # 42 dB: quality 95, chroma not halved


def test_mask_round_trip(tmp_path):
    mask = np.random.default_rng(1).random((13, 9)) < 0.3
    (tmp_path / "m.png").write_bytes(encode_mask(mask))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), mask)
    assert read_mask(tmp_path / "m.png").dtype == bool


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9])
def test_truncated_colour_is_refused(tmp_path, suffix, share):
    data = encode_colour(_photo(), suffix)
    file = tmp_path / f"frame{suffix}"
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(FrameError) as error:
        read_colour(file)
    _refused(error, file, "cannot be decoded", f"found {int(share * len(data))} bytes", "again")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.9])
def test_truncated_depth_is_refused(tmp_path, share):
    rng = np.random.default_rng(0)
    data = encode_depth(rng.uniform(0.5, 5.0, (40, 40)).astype(np.float32))
    file = tmp_path / "frame.depth.png"
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(FrameError) as error:
        read_depth(file)
    _refused(error, file, "cannot be decoded", "on_bad_frame='skip'")


@given(place=st.integers(0, 10**6), byte=st.integers(0, 255), suffix=st.sampled_from([".jpg", ".png"]))
@SAME_FILE
def test_a_damaged_byte_raises_our_error_or_nothing(tmp_path, place, byte, suffix):
    data = bytearray(encode_colour(_photo(16, 16), suffix))
    data[place % len(data)] = byte
    file = tmp_path / f"damaged{suffix}"
    file.write_bytes(data)
    # Any other exception fails the test; a flipped pixel value may well decode.
    with contextlib.suppress(FrameError):
        pixels = read_colour(file)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3


@pytest.mark.parametrize("read", [read_colour, read_depth, read_header])
def test_absent_file(tmp_path, read):
    with pytest.raises(FrameError, match=r"does not exist.*restore the file") as error:
        read(tmp_path / "none.png")
    assert "none.png" in str(error.value)


def test_folder_in_place_of_an_image(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(FrameError, match=r"a\.png"):
        read_colour(tmp_path / "a.png")


@pytest.mark.parametrize(("mode", "found"), [("L", "PNG L 8x6"), ("RGB", "PNG RGB 8x6"), ("1", "PNG 1 8x6")])
@pytest.mark.parametrize("read", [read_depth, lambda path: read_header(path, kind="depth")])
def test_depth_of_the_wrong_type(tmp_path, mode, found, read):
    file = tmp_path / "frame.depth.png"
    Image.new(mode, (8, 6)).save(file)
    with pytest.raises(FrameError) as error:
        read(file)
    _refused(error, file, found, "expected 16-bit greyscale", "export")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16"])
def test_colour_of_the_wrong_type(tmp_path, mode):
    file = tmp_path / "frame.png"
    Image.new(mode, (8, 6)).save(file)
    with pytest.raises(FrameError) as error:
        read_colour(file)
    _refused(error, file, f"PNG {mode} 8x6", "expected an 8-bit RGB", "convert")


def test_depth_beyond_16_bit(tmp_path):
    file = tmp_path / "frame.tiff"
    Image.fromarray(np.array([[70000, 5]], dtype=np.int32)).save(file)
    with pytest.raises(FrameError) as error:
        read_depth(file)
    _refused(error, file, "5 to 70000", "between 0 and 65535", "16-bit")


def test_another_size(tmp_path):
    file = write_depth(tmp_path / "d.png", np.ones((6, 8), dtype=np.float32))
    assert read_depth(file, size=(8, 6)).shape == (6, 8)
    with pytest.raises(FrameError) as error:
        read_depth(file, size=(6, 8))
    _refused(error, file, "8x6", "expected 6x8", "resize")


def _png(width: int, height: int) -> bytes:
    """A PNG that claims a size which no encoder here would write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_empty_image(tmp_path, size):
    file = tmp_path / "empty.png"
    file.write_bytes(_png(*size))
    with pytest.raises(FrameError, match=r"empty\.png.*export this frame again|empty\.png.*again"):
        read_colour(file)


def test_decompression_bomb(tmp_path):
    file = tmp_path / "bomb.png"
    file.write_bytes(_png(60000, 60000))
    with pytest.raises(FrameError, match=r"bomb\.png"):
        read_colour(file)


def test_checksum(tmp_path):
    file = write_colour(tmp_path / "c.png", _photo())
    with pytest.raises(FrameError) as error:
        read_colour(file, sha256="0" * 64)
    _refused(error, file, "checksum", "damaged or changed", "prepare the scene again")


def test_unknown_suffix(tmp_path):
    with pytest.raises(SceneError, match=r"'\.bmp'.*choose"):
        encode_colour(_photo(), ".bmp")
