"""How a 3D-FRONT room is photographed."""

import dataclasses

from stereopsis.errors import check_ranges


@dataclasses.dataclass(frozen=True, kw_only=True)
class Front3DConfig:
    """Settings of the walk; together with the house's files they determine every byte of a room.

    Attributes:
        views: photographs along the walk.
        width: image width, pixels.
        height: image height, pixels.
        horizontal_fov_degrees: horizontal field of view; pixels are square.
        seed: of walk and lamps; another seed gives another walk through the same room.
        visibility: count each object's pixels in each view when the room is opened (a ray per pixel). Without,
            opening is faster and ``visible_pixels`` stays empty.
    """

    views: int = 16
    width: int = 320
    height: int = 240
    horizontal_fov_degrees: float = 80.0
    seed: int = 0
    visibility: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that no walk can satisfy.

        Raises:
            SceneError: a value is out of range.
        """
        ranges = {
            "views": (1, 4096),
            "width": (8, 4096),
            "height": (8, 4096),
            "horizontal_fov_degrees": (20.0, 150.0),
            "seed": (0, 2**32 - 1),
        }
        check_ranges(self, ranges)
