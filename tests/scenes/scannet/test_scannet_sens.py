import dataclasses
import io
import pickle
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from scannet_files import (
    COLOUR_K,
    COLOUR_SIZE,
    DEPTH_K,
    DEPTH_SIZE,
    LOST,
    colour_of,
    depth_of,
    frame_bytes,
    plain_frames,
    pose_of,
    sens_bytes,
)

from stereopsis.errors import FrameError, SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.readers.scannet import SensRecord, open_sens, sens_record, write_sens
from stereopsis.scenes.readers.scannet.sens import FRAME, OPENING, PARAMETERS, read_payload, read_sens_depth_units
from stereopsis.scenes.readers.seven_scenes import read_seven_scenes

COLOUR = Intrinsics.from_matrix(COLOUR_K, *COLOUR_SIZE)
DEPTH = Intrinsics.from_matrix(DEPTH_K, *DEPTH_SIZE)


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


def _records(count: int = 3, encode=lambda pixels: pixels.tobytes()) -> list[SensRecord]:
    return [
        SensRecord(
            T_world_camera=pose_of(index),
            colour=encode(colour_of(index)),
            depth=depth_of(index),
            colour_timestamp=11,
            depth_timestamp=22,
        )
        for index in range(count)
    ]


def test_a_file_made_by_hand(make_sens):
    sens = open_sens(make_sens(sens_bytes(plain_frames(), name="Sensor é".encode())))
    header = sens.header
    assert (header.sensor, header.depth_shift) == ("Sensor é", 1000.0)
    assert (header.colour_size, header.depth_size) == ((6, 4), (4, 3))
    assert (header.colour_compression, header.depth_compression) == ("raw", "zlib")
    np.testing.assert_array_equal(header.colour_intrinsics, COLOUR_K)
    np.testing.assert_array_equal(header.depth_intrinsics, DEPTH_K)
    np.testing.assert_array_equal(header.depth_extrinsics, np.eye(4))
    assert [item.index for item in sens.frames] == [0, 1, 2]
    assert (sens.frames[2].colour_timestamp, sens.frames[2].depth_timestamp) == (11, 22)
    assert sens.frames[2].T_world_camera[0, 3] == 0.25
    np.testing.assert_array_equal(sens.colour(1), colour_of(1))
    assert sens.colour(1)[3, 5].tolist() == [3, 5, 1]
    depth = sens.depth(2)
    assert depth.dtype == np.float32
    assert depth[2, 3] == np.float32(3.203)
    assert depth[0].tolist() == [0.0, 0.0, np.float32(1.202), np.float32(1.203)]  # 0 and 65535 are invalid


@pytest.mark.parametrize(("code", "kind"), [(1, "PNG"), (2, "JPEG")])
def test_colour_that_is_compressed(make_sens, code, kind):
    pixels = np.full((4, 6, 3), 90, dtype=np.uint8)
    frame = frame_bytes(pose_of(0), _encoded(pixels, kind), zlib.compress(depth_of(0).tobytes()))
    colour = open_sens(make_sens(sens_bytes([frame], colour_code=code))).colour(0)
    np.testing.assert_allclose(colour, pixels, atol=1)


def test_raw_depth_of_another_unit(make_sens):
    frame = frame_bytes(pose_of(0), colour_of(0).tobytes(), depth_of(0).astype("<u2").tobytes())
    sens = open_sens(make_sens(sens_bytes([frame], depth_code=0, shift=500.0)))
    assert sens.depth(0)[1, 2] == np.float32(2002 / 500)


def test_lost_poses_and_what_follows_the_frames(make_sens):
    data = sens_bytes(plain_frames(poses={1: LOST, 2: np.full((4, 4), np.nan)}))
    sens = open_sens(make_sens(data + b"readings of an inertial unit"))
    assert np.isneginf(sens.frames[1].T_world_camera).all()
    assert np.isnan(sens.frames[2].T_world_camera).all()
    np.testing.assert_array_equal(sens.colour(2), colour_of(2))


def test_opening_reads_no_payload(make_sens):
    """Payloads of garbage are found only when they are asked for."""
    frames = [frame_bytes(pose_of(index), b"\xff" * 70, b"\xff" * 20) for index in range(2)]
    sens = open_sens(make_sens(sens_bytes(frames)))
    assert len(sens.frames) == 2
    with pytest.raises(FrameError):
        sens.colour(0)


HEADER = OPENING.size + 4 + PARAMETERS.size
FRAME_LENGTH = len(plain_frames(1)[0])

# What is done to a good file of three frames, and what the message must say.
FAULTS = {
    "empty": (lambda data: b"", "ends after 0 bytes, inside its opening; expected 12 more"),
    "cut in the name": (lambda data: data[:14], "inside the sensor's name; expected 2 more bytes"),
    "cut in the parameters": (lambda data: data[:100], "ends after 100 bytes, inside its parameters"),
    "cut in a frame's header": (lambda data: data[: HEADER + 50], "announces 3 frames, but has only 50 bytes"),
    "cut in a colour payload": (
        lambda data: data[: HEADER + 2 * FRAME_LENGTH + FRAME.size + 10],
        "inside frame 00002 of 3.*the frames before are complete.*download it again",
    ),
    "cut in a depth payload": (lambda data: data[:-1], "inside frame 00002 of 3.*cut off"),
    "one more frame announced": (
        lambda data: sens_bytes(plain_frames(), count=4),
        "inside frame 00003 of 4",
    ),
    "endless frames announced": (
        lambda data: sens_bytes(plain_frames(), count=2**64 - 1),
        "announces 18446744073709551615 frames, but has only",
    ),
    "version 3": (lambda data: sens_bytes([], version=3), r"\.sens version 3, but.*knows version 4.*convert"),
    "a text file": (lambda data: b"hello world, no sensor here", "version 1819043176.*check that it is a .sens file"),
    "endless name": (lambda data: sens_bytes([], name_length=2**63), "name is said to have 9223372036854775808 bytes"),
    "unknown colour compression": (lambda data: sens_bytes([], colour_code=7), "colour compression 7; known are 0 raw"),
    "negative depth compression": (lambda data: sens_bytes([], depth_code=-1), "depth compression -1; known are"),
    "occi depth": (lambda data: sens_bytes([], depth_code=2), "'occi', which is not read; expected raw or zlib"),
    "no width": (lambda data: sens_bytes([], colour_size=(0, 4)), "colour images of 0x4 pixels, expected 1 to"),
    "absurd height": (lambda data: sens_bytes([], depth_size=(4, 2**31)), "depth images of 4x2147483648 pixels"),
    "no depth unit": (lambda data: sens_bytes([], shift=0.0), "0 depth units per metre, expected a positive"),
    "NaN depth unit": (lambda data: sens_bytes([], shift=np.nan), "nan depth units per metre"),
    "endless payload": (
        lambda data: sens_bytes([struct.pack("<16f4Q", *np.eye(4).ravel(), 0, 0, 2**63, 2**63)]),
        "frame 00000 claims 9223372036854775808 bytes of colour.*more than its image sizes can need",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_says_what_is_wrong(make_sens, fault):
    spoil, message = FAULTS[fault]
    path = make_sens(spoil(sens_bytes(plain_frames())))
    with pytest.raises(SceneError, match=message) as error:
        open_sens(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("place", range(0, HEADER + 3 * FRAME_LENGTH, 37))
def test_wherever_it_is_cut_the_error_is_ours(make_sens, place):
    with pytest.raises(SceneError, match=r"expected|download"):
        open_sens(make_sens(sens_bytes(plain_frames())[:place]))


def test_no_file_and_a_loop_of_links(tmp_path):
    with pytest.raises(SceneError, match=r"none.sens: cannot be read"):
        open_sens(tmp_path / "none.sens")
    (tmp_path / "loop.sens").symlink_to(tmp_path / "loop.sens")
    with pytest.raises(SceneError, match=r"loop.sens: cannot be read"):
        open_sens(tmp_path / "loop.sens")
    with pytest.raises(SceneError, match=r"cannot be read"):
        open_sens(tmp_path)


GOOD_COLOUR = colour_of(0).tobytes()
GOOD_DEPTH = zlib.compress(depth_of(0).astype("<u2").tobytes())

# A frame's payloads, the header's changes, and what the message must say.
PAYLOADS = {
    "zlib of too few pixels": (GOOD_COLOUR, zlib.compress(b"\1\0" * 11), {}, "depth of 22 bytes, expected 24 .4x3"),
    "zlib of one byte too many": (GOOD_COLOUR, zlib.compress(b"\1" * 25), {}, "more than the 24 bytes.*stopped"),
    "zlib cut off": (GOOD_COLOUR, GOOD_DEPTH[:-6], {}, "compressed depth ends early"),
    "zlib with a wrong checksum": (GOOD_COLOUR, GOOD_DEPTH[:-4] + b"abcd", {}, "cannot be decompressed.*incorrect"),
    "no zlib": (GOOD_COLOUR, b"not compressed", {}, "cannot be decompressed"),
    "raw depth of another length": (GOOD_COLOUR, bytes(23), {"depth_code": 0}, "depth of 23 bytes, expected 24"),
    "raw colour of another length": (bytes(71), GOOD_DEPTH, {}, "raw colour of 71 bytes, expected 72 .6x4 RGB"),
    "sizes swapped": (
        GOOD_COLOUR,
        GOOD_DEPTH,
        {"colour_size": DEPTH_SIZE, "depth_size": COLOUR_SIZE},
        "raw colour of 72 bytes, expected 36",
    ),
    "no JPEG": (b"\xff\xd8garbage", GOOD_DEPTH, {"colour_code": 2}, "colour image cannot be decoded.*found 9 bytes"),
    "JPEG of another size": (
        _encoded(np.zeros((8, 8, 3), np.uint8), "JPEG"),
        GOOD_DEPTH,
        {"colour_code": 2},
        "found JPEG RGB 8x8, expected 6x4",
    ),
    "grey PNG": (
        _encoded(np.zeros((4, 6), np.uint8), "PNG"),
        GOOD_DEPTH,
        {"colour_code": 1},
        "found PNG L 6x4, expected an 8-bit RGB",
    ),
}


@pytest.mark.parametrize("fault", PAYLOADS)
def test_a_damaged_payload_spoils_its_frame_only(make_sens, fault):
    colour, depth, changes, message = PAYLOADS[fault]
    sens = open_sens(make_sens(sens_bytes([frame_bytes(pose_of(0), colour, depth)], **changes)))
    with pytest.raises(FrameError, match=message) as error:
        (sens.colour(0), sens.depth(0))
    assert "frame 00000" in str(error.value)


def test_a_depth_bomb_is_stopped_before_it_unfolds(make_sens):
    bomb = zlib.compress(bytes(64 << 20))
    sens = open_sens(make_sens(sens_bytes([frame_bytes(pose_of(0), GOOD_COLOUR, bomb)])))
    tracemalloc.start()
    with pytest.raises(FrameError, match=r"more than the 24 bytes"):
        sens.depth(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20  # 64 MB would have come out


def test_a_file_that_shrinks_after_opening(make_sens):
    path = make_sens(sens_bytes(plain_frames()))
    sens = open_sens(path)
    path.write_bytes(path.read_bytes()[:-5])
    assert sens.depth(1)[1, 0] == np.float32(2.1)
    with pytest.raises(FrameError, match=r"frame 00002: found .* bytes; the file changed after it was opened"):
        sens.depth(2)


def test_the_index_travels_to_other_processes(make_sens):
    sens = pickle.loads(pickle.dumps(open_sens(make_sens(sens_bytes(plain_frames())))))
    np.testing.assert_array_equal(sens.colour(2), colour_of(2))


def test_written_bytes_equal_those_made_by_hand(tmp_path):
    path = write_sens(
        tmp_path / "new" / "a.sens",
        iter(_records()),
        colour_intrinsics=COLOUR,
        depth_intrinsics=DEPTH,
        colour_compression="raw",
        depth_compression="raw",
        sensor="hand",
    )
    frames = [
        frame_bytes(pose_of(index), colour_of(index).tobytes(), depth_of(index).astype("<u2").tobytes())
        for index in range(3)
    ]
    assert path.read_bytes() == sens_bytes(frames, depth_code=0)


def test_a_real_capture_survives_exactly(kitchen, tmp_path):
    """Depth units and JPEG bytes of the kitchen come back as they were; poses to float32."""
    capture = read_seven_scenes(kitchen)
    chosen = capture.frames[::40]
    assert len(chosen) >= 3
    raw = [np.asarray(Image.open(kitchen / f"{frame.name}.depth.png")) for frame in chosen]
    jpegs = [(kitchen / f"{frame.name}.color.jpg").read_bytes() for frame in chosen]
    records = [
        SensRecord(T_world_camera=frame.T_world_camera, colour=jpeg, depth=units.astype(np.uint16))
        for frame, jpeg, units in zip(chosen, jpegs, raw, strict=True)
    ]
    path = write_sens(tmp_path / "kitchen.sens", records, colour_intrinsics=chosen[0].intrinsics)
    sens = open_sens(path)
    for index, frame in enumerate(chosen):
        item = sens.frames[index]
        assert read_payload(path, item.colour_offset, item.colour_bytes, "") == jpegs[index]
        np.testing.assert_array_equal(read_sens_depth_units(path, sens.header, item), raw[index])
        np.testing.assert_array_equal(sens.depth(index), frame.depth())
        np.testing.assert_array_equal(sens.colour(index), frame.colour())
        np.testing.assert_array_equal(item.T_world_camera, frame.T_world_camera.astype(np.float32))
    assert path.stat().st_size < sum(map(len, jpegs)) + sum(units.nbytes for units in raw)


def test_any_scene_can_be_written(make_scene, tmp_path):
    scene = make_scene()
    records = (sens_record(frame) for frame in scene.frames)
    sens = open_sens(write_sens(tmp_path / "a.sens", records, colour_intrinsics=scene.frames[0].intrinsics))
    np.testing.assert_array_equal(sens.depth(2), scene.frames[2].depth())  # whole millimetres
    np.testing.assert_allclose(sens.frames[2].T_world_camera, scene.frames[2].T_world_camera, atol=1e-6)
    with pytest.raises(FrameError, match=r"'view_000': has no depth.*with_mesh_depth"):
        sens_record(dataclasses.replace(scene.frames[0], load_depth=None))


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    def failing():
        yield _records()[0]
        raise RuntimeError("the sensor fell down")

    (tmp_path / "a.sens").write_bytes(b"old")
    settings = {"colour_intrinsics": COLOUR, "depth_intrinsics": DEPTH, "colour_compression": "raw"}
    with pytest.raises(RuntimeError, match=r"fell down"):
        write_sens(tmp_path / "a.sens", failing(), **settings)
    with pytest.raises(SceneError, match=r"no frames to write"):
        write_sens(tmp_path / "a.sens", [], **settings)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.sens", b"old")]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SceneError, match=r"cannot be written.*nothing half-written"):
        write_sens(tmp_path / "file" / "a.sens", _records(), **settings)


def test_the_writer_refuses_what_the_reader_would(tmp_path):
    path = tmp_path / "a.sens"
    small = Intrinsics.from_matrix(DEPTH_K, 2, 3)
    with pytest.raises(FrameError, match=r"frame 00000: depth is 4x3, expected 2x3"):
        write_sens(path, _records(), colour_intrinsics=COLOUR, depth_intrinsics=small, colour_compression="raw")
    with pytest.raises(FrameError, match=r"raw colour of 72 bytes, expected 36"):
        write_sens(path, _records(), colour_intrinsics=DEPTH, colour_compression="raw")
    with pytest.raises(FrameError, match=r"frame 00000: the colour image cannot be decoded"):
        write_sens(path, _records(), colour_intrinsics=COLOUR, depth_intrinsics=DEPTH)
    with pytest.raises(SceneError, match=r"name has 5000 bytes"):
        write_sens(path, _records(), colour_intrinsics=COLOUR, sensor="x" * 5000)
    with pytest.raises(SceneError, match=r"at most 16384 pixels"):
        write_sens(path, _records(), colour_intrinsics=COLOUR.resized(20000, 4))
    with pytest.raises(SceneError, match=r"implausible intrinsics"):
        write_sens(path, _records(), colour_intrinsics=COLOUR.cropped(5, 0, 1, 4))
    with pytest.raises(SceneError, match=r"depth_shift=0.0: expected a positive"):
        write_sens(path, _records(), colour_intrinsics=COLOUR, depth_shift=0.0)
    assert not list(tmp_path.iterdir())


def test_a_lost_pose_can_be_written(tmp_path):
    record = SensRecord(T_world_camera=LOST, colour=GOOD_COLOUR, depth=depth_of(0))
    path = write_sens(
        tmp_path / "a.sens",
        [record],
        colour_intrinsics=COLOUR,
        depth_intrinsics=DEPTH,
        colour_compression="raw",
    )
    assert np.isneginf(open_sens(path).frames[0].T_world_camera).all()
