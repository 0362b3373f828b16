"""COLMAP's camera models, by name and by number, as lenses."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from stereopsis.errors import SceneError
from stereopsis.geometry.camera import Intrinsics
from stereopsis.geometry.lens import Lens
from stereopsis.scenes.bad_frames import check_intrinsics


@dataclasses.dataclass(frozen=True, kw_only=True)
class CameraModel:
    """What the parameters of a model are.

    Attributes:
        number: in binary files.
        focal: how many focal lengths come first (then the principal point).
        rest: what each further parameter is: "k" radial, "r" rational, "p" tangential, "s" thin prism.
        fisheye: whether the angle is bent.
    """

    number: int
    focal: int
    rest: str = ""
    fisheye: bool = False

    @property
    def count(self) -> int:
        """How many parameters there are."""
        return self.focal + 2 + len(self.rest)


MODELS = {
    "SIMPLE_PINHOLE": CameraModel(number=0, focal=1),
    "PINHOLE": CameraModel(number=1, focal=2),
    "SIMPLE_RADIAL": CameraModel(number=2, focal=1, rest="k"),
    "RADIAL": CameraModel(number=3, focal=1, rest="kk"),
    "OPENCV": CameraModel(number=4, focal=2, rest="kkpp"),
    "OPENCV_FISHEYE": CameraModel(number=5, focal=2, rest="kkkk", fisheye=True),
    "FULL_OPENCV": CameraModel(number=6, focal=2, rest="kkppkrrr"),
    "SIMPLE_RADIAL_FISHEYE": CameraModel(number=8, focal=1, rest="k", fisheye=True),
    "RADIAL_FISHEYE": CameraModel(number=9, focal=1, rest="kk", fisheye=True),
    "THIN_PRISM_FISHEYE": CameraModel(number=10, focal=2, rest="kkppkkss", fisheye=True),
}


def model_of(name: str | int, where: str) -> CameraModel:
    """The model of this name or number.

    Raises:
        SceneError: it is not among those that can be straightened.
    """
    found = next((model for key, model in MODELS.items() if name in (key, model.number)), None)
    if found is None:
        raise SceneError(
            f"{where}: camera model {name}, expected one of {', '.join(MODELS)}: undistort the images first: colmap "
            "image_undistorter --image_path images --input_path sparse/0 --output_path dense, and open dense"
        )
    return found


def lens_of(model: CameraModel, size: tuple[int, int], parameters: Sequence[float], where: str) -> Lens:
    """The lens of a camera's parameters.

    Args:
        model: its model.
        size: (width, height), pixels.
        parameters: as many as the model has.
        where: the file and line, for messages.

    Raises:
        SceneError: they are not finite, or no camera has such a focal length or principal point.
    """
    values = [float(value) for value in parameters]
    if not np.isfinite(values).all():
        raise SceneError(f"{where}: found NaN or inf among the camera's parameters; expected numbers; correct the file")
    cx, cy = values[model.focal : model.focal + 2]
    camera = Intrinsics(fx=values[0], fy=values[model.focal - 1], cx=cx, cy=cy, width=size[0], height=size[1])
    check_intrinsics(camera, where)
    kinds: dict[str, tuple[float, ...]] = dict.fromkeys("krps", ())
    for kind, value in zip(model.rest, values[model.focal + 2 :], strict=True):
        kinds[kind] = (*kinds[kind], value)
    return Lens(
        camera=camera,
        fisheye=model.fisheye,
        radial=kinds["k"],
        rational=kinds["r"],
        tangential=_pair(kinds["p"]),
        prism=_pair(kinds["s"]),
    )


def _pair(values: tuple[float, ...]) -> tuple[float, float]:
    return (values[0], values[1]) if values else (0.0, 0.0)
