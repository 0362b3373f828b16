"""Reader of a scan of 3RScan (Wald et al., ICCV 2019): the unpacked ``sequence.zip``.

``sequence/`` holds ``_info.txt`` (``key = value``: sizes, depth units, both calibrations), and for every frame
``frame-000000.color.jpg``, ``frame-000000.depth.pgm`` (16-bit) and ``frame-000000.pose.txt`` (4x4 camera to world,
metres, OpenCV axes; NaN or inf where tracking was lost).
"""

import re
from pathlib import Path

import numpy as np

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, check_intrinsics
from stereopsis.scenes.conventions import Conventions, ReadOptions
from stereopsis.scenes.readers.capture_files import capture_frame, check_folder, read_pose, read_rows
from stereopsis.scenes.readers.capture_scene import Policy, capture_scene
from stereopsis.scenes.readers.depth_files import depth_file
from stereopsis.scenes.readers.listed_files import given_name, natural_key
from stereopsis.scenes.scene import Frame, Scene

EXPECTED_FILES = "sequence/ with _info.txt, frame-XXXXXX.color.jpg, .depth.pgm and .pose.txt (unpacked sequence.zip)"
_COLOUR = re.compile(r"^(frame-\d+)\.color\.(?:jpg|jpeg|png)$", re.IGNORECASE)
_KEYS = ("m_colorWidth", "m_colorHeight", "m_depthWidth", "m_depthHeight", "m_depthShift")


def is_3rscan(path: Path) -> bool:
    """Whether a folder is a scan with its unpacked sequence, or that sequence."""
    return _sequence(path) is not None


def scan_name(path: Path) -> str:
    """The scan's name: the folder's, or that of the folder above an unpacked sequence."""
    return given_name(path.absolute().parent) if given_name(path) == "sequence" else given_name(path)


def read_3rscan(
    path: Path,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float | int = MAX_BAD_FRACTION,
) -> Scene:
    """Open a scan of 3RScan.

    Args:
        path: the scan's folder, or its ``sequence``.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: files are absent or unusable, or too many frames are bad.
    """
    path = Path(path)
    policy = Policy(on_bad_frame=on_bad_frame, max_bad_fraction=max_bad_fraction)
    check_folder(path, EXPECTED_FILES)
    folder = _sequence(path)
    if folder is None:
        raise SceneError(f"{path}: found no _info.txt; expected {EXPECTED_FILES}; unpack sequence.zip")
    info = _info(folder / "_info.txt")
    camera, depth_camera = (_camera(folder / "_info.txt", info, kind) for kind in ("color", "depth"))
    scale = info["m_depthShift"][0]
    conventions = Conventions(depth_scale=scale).with_options(options, str(path))
    matches = sorted(filter(None, (_COLOUR.match(entry.name) for entry in folder.iterdir())), key=_natural)
    if not matches:
        raise SceneError(f"{folder}: holds no frames; expected {EXPECTED_FILES}; unpack sequence.zip again")

    def build(index: int, name: str) -> Frame:
        stem = matches[index][1]
        depth = next((f for s in ("pgm", "png") if (f := folder / f"{stem}.depth.{s}").is_file()), None)
        return capture_frame(
            name,
            read_pose(folder / f"{stem}.pose.txt", conventions),
            camera,
            folder / matches[index][0],
            depth_file(depth or folder / f"{stem}.depth.pgm", conventions.depth_scale),
            pose_from=f"{stem}.pose.txt",
            intrinsics_from=str(folder / "_info.txt"),
            depth_intrinsics=depth_camera,
        )

    names = [f"{match[1]}.jpg" for match in matches]
    return capture_scene(path, "3rscan", names, build, conventions, policy, scene_id=scan_name(path))


def _natural(match: re.Match[str]) -> tuple:
    return natural_key(match[0])


def _sequence(path: Path) -> Path | None:
    return next((folder for folder in (path / "sequence", path) if (folder / "_info.txt").is_file()), None)


def _info(file: Path) -> dict[str, list[float]]:
    info: dict[str, list[float]] = {}
    for row in read_rows(file, "description", expected="key = value"):
        key, _, value = row.text.partition("=")
        if key.strip().startswith("m_") and key.strip() not in ("m_sensorName", "m_versionNumber"):
            try:
                info[key.strip()] = [float(word) for word in value.split()]
            except ValueError as error:
                raise row.error(str(error)) from error
    missing = [key for key in _KEYS if len(info.get(key, ())) != 1 or not np.isfinite(info[key]).all()]
    if missing or info["m_depthShift"][0] <= 0:
        what = ", ".join(missing) or "a positive m_depthShift"
        raise SceneError(f"{file}: lacks {what}; expected {', '.join(_KEYS)}; restore the file")
    return info


def _camera(file: Path, info: dict[str, list[float]], kind: str) -> Intrinsics:
    key = f"m_calibration{kind.capitalize()}Intrinsic"
    try:
        matrix = np.array(info[key]).reshape(4, 4)
        camera = Intrinsics.from_matrix(matrix, int(info[f"m_{kind}Width"][0]), int(info[f"m_{kind}Height"][0]))
    except (KeyError, ValueError) as error:
        raise SceneError(f"{file}: {key}: {error}; expected a 4x4 pinhole matrix; restore the file") from error
    check_intrinsics(camera, f"{file}: {key}")
    return camera
