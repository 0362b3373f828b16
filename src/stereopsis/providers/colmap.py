"""Structure from motion by COLMAP (through pycolmap): cameras, and the depth of sparse points. The unit is arbitrary.

Runs on the CPU and needs no weights. Pictures in order are matched with their neighbours, few or unordered ones each
with each. Pictures of one size are taken to come from one camera, whose lens is estimated and straightened.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from stereopsis.errors import MissingExtraError, SceneError
from stereopsis.geometry.camera import Intrinsics, invert_pose
from stereopsis.geometry.lens import Lens, pinhole_for, undistort_colour
from stereopsis.providers.provider import EstimatedGeometry, EstimatedView, GeometryProvider, Picture, check_enough
from stereopsis.scenes.images import encode_colour
from stereopsis.scenes.prepare.parallel import usable_cpus

EXHAUSTIVE_UP_TO = 40
"""Pictures of a video are matched each with each up to so many; photos always."""
LEAST_VIEWS = 4
LEAST_MATCHES = 15
LEAST_POINTS = 20
TURNING = 0.8
"""Share of the matched pairs without parallax from which a camera counts as one that only turns."""
_MAX_REPROJECTION = 2.0
_LEAST_TRACK = 3
_NEGLIGIBLE_SHIFT = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colmap(GeometryProvider):
    """See the module's docstring.

    Attributes:
        mapper: "incremental", or "global" (GLOMAP: faster on many pictures, wants better overlap).
        seed: of its random choices.
        threads: 0: as many as this process may use.
    """

    name = "colmap"
    gives_poses = True
    gives_depth = False

    mapper: str = "incremental"
    seed: int = 0
    threads: int = 0

    def check(self) -> None:
        """See `GeometryProvider.check`."""
        if importlib.util.find_spec("pycolmap") is None:
            raise MissingExtraError("pycolmap", "colmap", "estimating cameras with --geometry colmap")

    def estimate(
        self, pictures: Sequence[Picture], *, in_order: bool, known: EstimatedGeometry | None = None
    ) -> EstimatedGeometry:
        """See `GeometryProvider.estimate`; ``places`` are the points that each picture observes."""
        self.check()
        check_enough(pictures, LEAST_VIEWS, "COLMAP")
        with tempfile.TemporaryDirectory(prefix="stereopsis-colmap-") as folder, _quiet():
            models, seen = self._models(Path(folder), pictures, in_order)
            parts = sorted(models, key=lambda model: -model.num_reg_images())
            parts = [part for part in parts if part.num_points3D() >= LEAST_POINTS]
            if not parts or parts[0].num_reg_images() < LEAST_VIEWS:
                raise SceneError(_why_nothing(len(pictures), seen))
            return _answer(parts, pictures)

    def _models(self, folder: Path, pictures: Sequence[Picture], in_order: bool) -> tuple[list[Any], "Matches"]:
        import pycolmap

        database, images = folder / "database.db", folder / "images"
        focal = _write(images, pictures)
        pycolmap.set_random_seed(self.seed)
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = "SIMPLE_RADIAL"
        if focal is not None:
            reader.default_focal_length_factor = focal
        extraction = pycolmap.FeatureExtractionOptions()
        extraction.num_threads = self.threads or usable_cpus()
        pycolmap.extract_features(
            database,
            images,
            camera_mode=pycolmap.CameraMode.PER_FOLDER,
            reader_options=reader,
            extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )
        matching = pycolmap.FeatureMatchingOptions()
        matching.num_threads = self.threads or usable_cpus()
        if in_order and len(pictures) > EXHAUSTIVE_UP_TO:
            pycolmap.match_sequential(database, matching_options=matching, device=pycolmap.Device.cpu)
        else:
            pycolmap.match_exhaustive(database, matching_options=matching, device=pycolmap.Device.cpu)
        found = _matches(database)
        if not found.moved:
            return [], found
        out = folder / "models"
        out.mkdir()
        return list(self._map(database, images, out).values()), found

    def _map(self, database: Path, images: Path, out: Path) -> Mapping[int, Any]:
        import pycolmap

        if self.mapper == "global":
            found: Mapping[int, Any] = pycolmap.global_mapping(database, images, out)
            return found
        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads = self.threads or usable_cpus()
        options.random_seed = self.seed
        options.min_model_size = LEAST_VIEWS
        options.extract_colors = False
        models: Mapping[int, Any] = pycolmap.incremental_mapping(database, images, out, options)
        return models


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matches:
    """How many pairs of pictures match, with parallax and without."""

    moved: int
    turned: int


def _matches(database: Path) -> Matches:
    import pycolmap

    kinds = pycolmap.TwoViewGeometryConfiguration
    still = {int(kinds.PANORAMIC), int(kinds.PLANAR_OR_PANORAMIC)}
    both = {int(kinds.CALIBRATED), int(kinds.UNCALIBRATED), int(kinds.PLANAR), *still}
    with contextlib.closing(pycolmap.Database.open(database)) as opened:
        _, geometries = opened.read_two_view_geometries()
    used = [int(g.config) for g in geometries if int(g.config) in both and len(g.inlier_matches) >= LEAST_MATCHES]
    turned = sum(kind in still for kind in used)
    return Matches(moved=len(used) - turned, turned=turned)


def _why_nothing(pictures: int, found: Matches) -> str:
    pairs = found.moved + found.turned
    if not pairs:
        return (
            f"COLMAP finds nothing that two of the {pictures} pictures share: they do not overlap, or are blurred or "
            "bare; film slowly, in good light, so that each picture shows most of what the one before it shows"
        )
    if found.turned >= TURNING * pairs:
        return (
            f"COLMAP finds no parallax: in {found.turned} of {pairs} pairs of pictures the camera only turned on the "
            "spot, or looked at one flat thing; depth shows only to a camera that moves: walk "
            "sideways through the room while filming"
        )
    return (
        f"COLMAP matches {pairs} pairs of the {pictures} pictures but cannot connect {LEAST_VIEWS} or more of them: "
        "too little overlap or parallax; take more pictures (--frames, --every), and move slowly sideways"
    )


def _answer(parts: Sequence[Any], pictures: Sequence[Picture]) -> EstimatedGeometry:
    """The largest part; pictures of the others are listed, as nothing says where the parts lie to each other."""
    kept = {_picture_name(image.name): image for image in _registered(parts[0])}
    other = {_picture_name(i.name): number for number, part in enumerate(parts[1:], 2) for i in _registered(part)}
    views, left_out = {}, {}
    for picture in pictures:
        if picture.name in kept:
            views[picture.name] = _view(picture, kept[picture.name], parts[0])
        elif picture.name in other:
            left_out[picture.name] = f"belongs to part {other[picture.name]} of {len(parts)}, which does not connect"
        else:
            left_out[picture.name] = "does not match the other pictures"
    notes = {
        "parts": [part.num_reg_images() for part in parts],
        "points": int(parts[0].num_points3D()),
        "reprojection_error_pixels": round(float(parts[0].compute_mean_reprojection_error()), 3),
    }
    return EstimatedGeometry(views=views, metric=False, left_out=left_out, notes=notes)


def _registered(model: Any) -> Iterator[Any]:
    return (image for image in model.images.values() if image.has_pose)


def _view(picture: Picture, image: Any, model: Any) -> EstimatedView:
    camera = model.cameras[image.camera_id]
    f, cx, cy, k = (float(value) for value in camera.params)
    width, height = picture.size
    bent = Intrinsics(fx=f, fy=f, cx=cx, cy=cy, width=width, height=height)
    lens = Lens(camera=bent, radial=(k,))
    pinhole, straight = bent, None
    if lens.shift() > _NEGLIGIBLE_SHIFT:
        try:
            pinhole = pinhole_for(lens)
            straight = functools.partial(_straightened, picture.load_colour, lens, pinhole)
        except ValueError as error:
            raise SceneError(
                f"{picture.name}: COLMAP found a lens that folds the picture ({error}); the pictures show too little "
                "to know the lens by: take more, with more parallax"
            ) from error
    pose = np.eye(4)
    pose[:3] = image.cam_from_world().matrix()  # world to camera
    pose = invert_pose(pose)
    return EstimatedView(
        intrinsics=pinhole, T_world_camera=pose, places=_places(image, model, pose, pinhole), straight=straight
    )


def _places(image: Any, model: Any, pose: np.ndarray, camera: Intrinsics) -> Float[np.ndarray, "n 3"]:
    """Where the well-seen points lie in a picture, and how deep."""
    sure = []
    for observed in image.points2D:
        if observed.has_point3D():
            point = model.points3D[observed.point3D_id]
            if point.track.length() >= _LEAST_TRACK and point.error <= _MAX_REPROJECTION:
                sure.append(point.xyz)
    if not sure:
        return np.zeros((0, 3))
    local = (np.asarray(sure) - pose[:3, 3]) @ pose[:3, :3]
    local = local[local[:, 2] > 0]
    columns = local[:, 0] / local[:, 2] * camera.fx + camera.cx
    rows = local[:, 1] / local[:, 2] * camera.fy + camera.cy
    inside = (columns >= 0) & (columns < camera.width) & (rows >= 0) & (rows < camera.height)
    return np.stack([columns, rows, local[:, 2]], axis=1)[inside]


def _straightened(
    load: Callable[[], np.ndarray], lens: Lens, target: Intrinsics
) -> UInt8[np.ndarray, "height width 3"]:
    return undistort_colour(load(), lens, target)


def _write(folder: Path, pictures: Sequence[Picture]) -> float | None:
    """One folder per size, as each size is one camera; returns the focal length over the longer side where told."""
    for picture in pictures:
        place = folder / f"{picture.size[0]}x{picture.size[1]}" / f"{picture.name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encode_colour(picture.colour(), ".png"))
    told = [picture.focal / max(picture.size) for picture in pictures if picture.focal]
    return float(np.median(told)) if told else None


def _picture_name(image: str) -> str:
    return image.split("/", 1)[-1].removesuffix(".png")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """COLMAP tells every step on the standard error; what matters comes back in the answer."""
    import pycolmap

    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value if hasattr(pycolmap.logging, "FATAL") else 3
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before
