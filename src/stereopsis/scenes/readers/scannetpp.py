"""Reader of ScanNet++ (Yeshwanth et al., ICCV 2023): a scene's iPhone and DSLR recordings, one scene each.

``SCENE/iphone/`` holds ``colmap/`` (metric, OPENCV lens), ``rgb/frame_000000.jpg`` and ``depth/frame_000000.png``
(16-bit millimetres), as the data set's toolkit extracts them from ``rgb.mkv`` and ``depth.bin``. ``SCENE/dslr/`` holds
``colmap/`` (OPENCV_FISHEYE lens), ``resized_images/DSC00000.JPG`` and ``train_test_lists.json``; its depth is cast from
``SCENE/scans/mesh_aligned_0.05.ply``, whose world both share. All pictures are straightened when they are read.
"""

from collections.abc import Sequence
from pathlib import Path

from stereopsis.errors import SceneError
from stereopsis.scenes.bad_frames import MAX_BAD_FRACTION, OnBadFrame, keep_frames
from stereopsis.scenes.conventions import ReadOptions
from stereopsis.scenes.readers.capture_files import read_json
from stereopsis.scenes.readers.colmap import read_colmap
from stereopsis.scenes.readers.colmap_files import is_model
from stereopsis.scenes.readers.listed_files import given_name
from stereopsis.scenes.scene import Scene
from stereopsis.scenes.surfaces.mesh_depth import with_mesh_depth

EXPECTED_FILES = (
    "SCENE/iphone/ (colmap/, rgb/, depth/) or SCENE/dslr/ (colmap/, resized_images/) beside "
    "SCENE/scans/mesh_aligned_0.05"
    ".ply"
)
DEVICES = ("iphone", "dslr")
IMAGES = {"iphone": ("rgb",), "dslr": ("resized_images",)}
MESH = "mesh_aligned_0.05.ply"
_LISTS = '"train" and "test": lists of image names'
_TOOLKIT = "extract them with the data set's toolkit (iphone/prepare_iphone_data.py)"


def is_scannetpp(path: Path) -> bool:
    """Whether a path is one of a scene's recordings, or the folder that holds them."""
    return bool(scannetpp_paths(path))


def scannetpp_paths(path: Path) -> Sequence[Path]:
    """The recordings at a path: itself, or those in it."""
    inner = [path] if given_name(path) in DEVICES else [path / device for device in DEVICES]
    return [each for each in inner if is_model(each / "colmap") and _device_files(each)]


def recording_id(path: Path) -> str:
    """SCENE_iphone or SCENE_dslr."""
    return f"{given_name(path.absolute().parent)}_{given_name(path)}"


def read_scannetpp(
    path: Path,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    on_bad_frame: OnBadFrame = "raise",
    max_bad_fraction: float | int = MAX_BAD_FRACTION,
) -> Scene:
    """Open one recording of a scene.

    Images that the data set keeps for tests are left out and counted in ``provenance["left_out"]``.

    Args:
        path: ``SCENE/iphone`` or ``SCENE/dslr``; the scene's folder where it holds only one of them.
        options: what a person says of poses and depth; goes before the layout's own.
        on_bad_frame: "raise" stops at the first bad frame; "skip" leaves bad frames out and counts them.
        max_bad_fraction: the share of bad frames at which "skip" stops, too.

    Raises:
        FrameError: a frame is bad and the policy is "raise".
        SceneError: files are absent or unusable, or too many frames are bad.
    """
    path = Path(path)
    found = scannetpp_paths(path)
    if len(found) != 1:
        what = " and ".join(str(each) for each in found) or "no recording"
        raise SceneError(f"{path}: found {what}; expected {EXPECTED_FILES}; name one of the recordings")
    path, device = found[0], given_name(found[0])
    images = next((path / name for name in IMAGES[device] if (path / name).is_dir()), None)
    if images is None:
        raise SceneError(f"{path}: holds no {' or '.join(IMAGES[device])} folder of images; {_TOOLKIT}")
    if device == "iphone" and not (path / "depth").is_dir():
        raise SceneError(f"{path}: holds no depth folder of images; {_TOOLKIT}")
    scene = read_colmap(
        path,
        images=images,
        metres_per_unit=float(options.pose_unit or 1.0),
        options=options,
        on_bad_frame=on_bad_frame,
        max_bad_fraction=max_bad_fraction,
    )
    provenance = {**scene.provenance, "format": "scannetpp", "device": device}
    scene = _without_tests(scene.replace(id=recording_id(path), provenance=provenance), path / "train_test_lists.json")
    mesh = path.parent / "scans" / MESH
    if mesh.is_file():
        scene = scene.replace(provenance={**scene.provenance, "mesh": str(mesh)})
        if any(frame.load_depth is None for frame in scene.frames):
            return with_mesh_depth(scene, mesh)
    return scene


def _device_files(path: Path) -> bool:
    names = (*IMAGES.get(given_name(path), ()), "rgb.mkv", "pose_intrinsic_imu.json", "train_test_lists.json")
    return any((path / name).exists() for name in names)


def _without_tests(scene: Scene, file: Path) -> Scene:
    if not file.is_file():
        return scene
    held = read_json(file, "split", expected=_LISTS).get("test") or []
    if not isinstance(held, list) or not all(isinstance(name, str) for name in held):
        raise SceneError(f"{file}: 'test' is no list of names; expected {_LISTS}; restore the file")
    names = {Path(name).stem for name in held}
    kept = [index for index, frame in enumerate(scene.frames) if frame.name not in names]
    count = len(scene.frames) - len(kept)
    facts = {"left_out": {"test_frames": count}} if count else {}
    return keep_frames(scene.replace(provenance={**scene.provenance, **facts}), kept)
