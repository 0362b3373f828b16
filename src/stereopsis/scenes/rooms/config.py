"""What a procedural room may contain and how it is photographed."""

import dataclasses

from stereopsis.errors import check_ranges


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoomConfig:
    """Settings of the procedural rooms; together with a seed they determine every byte of a room.

    Attributes:
        views: photographs along the walk.
        width: image width, pixels.
        height: image height, pixels.
        horizontal_fov_degrees: horizontal field of view; pixels are square.
        min_objects: fewest pieces of furniture and small items (doors, windows and pictures come on top).
        max_objects: most pieces of furniture and small items.
        min_visible_pixels: an object is listed only if at least one view shows this many of its pixels.
        min_side: shortest wall, metres.
        max_side: longest wall, metres.
    """

    views: int = 8
    width: int = 96
    height: int = 96
    horizontal_fov_degrees: float = 80.0
    min_objects: int = 6
    max_objects: int = 11
    min_visible_pixels: int = 12
    min_side: float = 3.0
    max_side: float = 6.0

    def __post_init__(self) -> None:
        """Refuse settings that no room can satisfy.

        Raises:
            SceneError: a value is out of range.
        """
        ranges = {
            "views": (1, 4096),
            "width": (8, 4096),
            "height": (8, 4096),
            "horizontal_fov_degrees": (20.0, 150.0),
            "min_objects": (1, 12),
            "max_objects": (self.min_objects, 30),
            "min_visible_pixels": (1, 1_000_000),
            "min_side": (3.0, 12.0),
            "max_side": (self.min_side, 12.0),
        }
        check_ranges(self, ranges)
