"""What messages of a rosbag say: images in ROS's encodings, compressed ones, cameras, and poses with their times."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from stereopsis.errors import FrameError, MissingExtraError, SceneError, StereopsisError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.geometry.lens import Lens
from stereopsis.scenes.images import decode_colour, decode_depth_values
from stereopsis.scenes.readers.trajectories import pose_from_quaternion

COLOURS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0), "mono8": (0, 0, 0)}
"""Encoding -> the channels that are red, green and blue."""
COLOURS |= {"8UC3": (2, 1, 0), "8UC4": (2, 1, 0), "8UC1": (0, 0, 0)}
DEPTHS = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
"""Encoding -> the type of a pixel: units of `Conventions.depth_scale` (millimetres) as integers, or metres."""
_CHANNELS = {"rgba8": 4, "bgra8": 4, "8UC4": 4, "mono8": 1, "8UC1": 1}
_COMPRESSED_DEPTH = "compressedDepth"
_DEPTH_HEADER = struct.Struct("<iff")
NANOSECONDS = 1_000_000_000


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The bag, read by the package ``rosbags``: ROS 1, or ROS 2 with SQLite or MCAP inside.

    Raises:
        MissingExtraError: the package is not installed.
        SceneError: the bag is damaged, or no bag.
    """
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise MissingExtraError("rosbags", "rosbag", "A rosbag") from error
    try:
        # bags of older ROS 2 versions bring no definitions of their messages; those used here never changed
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
            yield reader
    except StereopsisError:
        raise
    except Exception as error:  # a damaged bag makes the package raise many things
        raise SceneError(
            f"{path}: cannot be read as a rosbag ({type(error).__name__}: {str(error)[:200]}); expected a ROS 1 .bag, "
            "or a ROS 2 folder with metadata.yaml; copy it again, or mend it ('ros2 bag reindex')"
        ) from error


def seconds(stamp: Any) -> float:
    """A ROS time as seconds."""
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9


def message_at(path: Path, topic: str, recorded: int) -> Any:
    """The message that was recorded on a topic at this time (nanoseconds).

    Raises:
        FrameError: it is not there any more, or damaged.
    """
    try:
        with opened(path) as reader:
            connections = [each for each in reader.connections if each.topic == topic]
            for connection, _, raw in reader.messages(connections, start=recorded, stop=recorded + 1):
                return reader.deserialize(raw, connection.msgtype)
    except SceneError as error:
        raise FrameError(str(error)) from error
    raise FrameError(
        f"{path}: {topic} holds no message of {recorded} ns any more; the bag has changed since it was opened"
    )


def kind_of_image(message: Any) -> str | None:
    """Whether a message is a "colour" or a "depth" image; None where its encoding is neither's."""
    encoding = str(getattr(message, "encoding", "") or getattr(message, "format", ""))
    if _COMPRESSED_DEPTH in encoding or encoding.split(";")[0].strip() in DEPTHS:
        return "depth"
    plain = hasattr(message, "encoding")
    return "colour" if (encoding in COLOURS if plain else bool(encoding)) else None


def size_of_image(message: Any, where: str) -> tuple[int, int]:
    """Width and height.

    Raises:
        FrameError: a compressed image is damaged.
    """
    if hasattr(message, "encoding"):
        return int(message.width), int(message.height)
    pixels = colour_of(message, where) if kind_of_image(message) == "colour" else depth_of(message, where, 1.0)
    return pixels.shape[1], pixels.shape[0]


def colour_of(message: Any, where: str) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels of a colour image, raw or compressed.

    Raises:
        FrameError: the encoding is unknown, or the data do not fill the image.
    """
    if not hasattr(message, "encoding"):
        return decode_colour(bytes(message.data), where)
    if message.encoding not in COLOURS:
        raise FrameError(f"{where}: colour in the encoding '{message.encoding}'; known are {', '.join(COLOURS)}")
    pixels = _rows(message, "u1", _CHANNELS.get(message.encoding, 3), where)
    return np.ascontiguousarray(pixels[..., list(COLOURS[message.encoding])])


def depth_of(message: Any, where: str, units_per_metre: float | int) -> Float[np.ndarray, "height width"]:
    """Depth as float32 metres, 0 where nothing was measured: integers in units, floating-point numbers in metres.

    Raises:
        FrameError: the encoding is unknown, or the data do not fill the image.
    """
    if hasattr(message, "encoding"):
        if message.encoding not in DEPTHS:
            raise FrameError(f"{where}: depth in the encoding '{message.encoding}'; known are {', '.join(DEPTHS)}")
        kind = DEPTHS[message.encoding]
        values = _rows(message, kind, 1, where)[..., 0].astype(np.float32)
        depth = values if kind == "f4" else values / np.float32(units_per_metre)
    else:
        depth = _compressed_depth(bytes(message.data), str(message.format), where, units_per_metre)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0)).astype(np.float32)


def _compressed_depth(data: bytes, format: str, where: str, units_per_metre: float | int) -> np.ndarray:
    """As image_transport's compressed_depth writes it: twelve bytes of parameters, then a 16-bit PNG."""
    scale: tuple[float, float] | None = None
    if _COMPRESSED_DEPTH in format:
        if "rvl" in format.lower() or len(data) < _DEPTH_HEADER.size:
            raise FrameError(f"{where}: depth compressed as '{format}'; expected 'compressedDepth png'")
        _, first, second = _DEPTH_HEADER.unpack_from(data)
        data = data[_DEPTH_HEADER.size :]
        scale = (first, second) if format.startswith("32FC1") else None
    values = decode_depth_values(data, where).astype(np.float32)
    if scale is None:
        return values / np.float32(units_per_metre)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, np.float32(scale[0]) / (values - np.float32(scale[1])), np.float32(0))


def _rows(message: Any, kind: str, channels: int, where: str) -> np.ndarray:
    """[height, width, channels] of a raw image, whose rows may be longer than they are wide."""
    width, height, step = int(message.width), int(message.height), int(message.step)
    item = np.dtype(("<", ">")[bool(message.is_bigendian)] + kind)
    needed = width * channels * item.itemsize
    data = np.asarray(message.data, dtype=np.uint8).ravel()
    if width < 1 or height < 1 or step < needed or len(data) < step * (height - 1) + needed:
        raise FrameError(
            f"{where}: {width}x{height} pixels of '{message.encoding}' with rows of {step} bytes do not fit its "
            f"{len(data)} bytes; record again, or leave the frame out with on_bad_frame='skip'"
        )
    whole = np.zeros(step * height, dtype=np.uint8)
    whole[: min(len(data), len(whole))] = data[: len(whole)]
    return np.ascontiguousarray(whole.reshape(height, step)[:, :needed]).view(item).reshape(height, width, channels)


def lens_of(message: Any, where: str) -> Lens:
    """A sensor_msgs/CameraInfo: focal lengths for images as they were recorded, with their distortion.

    ROS counts pixel centres as whole numbers, as OpenCV does; here they lie at +0.5.

    Raises:
        SceneError: the model is unknown.
    """
    matrix = np.array(getattr(message, "k", getattr(message, "K", None)), dtype=np.float64).reshape(3, 3)
    bent = [float(value) for value in np.ravel(getattr(message, "d", getattr(message, "D", ())))]
    camera = Intrinsics(
        fx=matrix[0, 0],
        fy=matrix[1, 1],
        cx=matrix[0, 2] + 0.5,
        cy=matrix[1, 2] + 0.5,
        width=int(message.width),
        height=int(message.height),
    )
    model = str(message.distortion_model)
    if not any(bent):
        return Lens(camera=camera)
    if model in ("equidistant", "fisheye"):
        return Lens(camera=camera, fisheye=True, radial=tuple(bent[:4]))
    if model in ("plumb_bob", "rational_polynomial") and len(bent) in (4, 5, 8):
        more = (*bent, *[0.0] * (8 - len(bent)))
        radial, rational = (more[0], more[1], more[4]), tuple(more[5:8]) if any(more[5:8]) else ()
        return Lens(camera=camera, radial=radial, rational=rational, tangential=(more[2], more[3]))
    raise SceneError(
        f"{where}: a lens of the model '{model}' with {len(bent)} coefficients; expected plumb_bob, "
        "rational_polynomial or equidistant; rectify the images (image_proc) and record those"
    )


def pose_of(message: Any) -> Float[np.ndarray, "4 4"]:
    """The [4, 4] matrix of a geometry_msgs Transform or Pose.

    Raises:
        ValueError: not finite, or the quaternion is not of unit length.
    """
    place = getattr(message, "translation", None) or message.position
    turn = getattr(message, "rotation", None) or message.orientation
    quaternion = np.array([turn.x, turn.y, turn.z, turn.w], dtype=np.float64)
    return pose_from_quaternion(quaternion, np.array([place.x, place.y, place.z], dtype=np.float64))
