"""What to say about a room, how much of it, and how clear a fact must be before it is said."""

import dataclasses
import types
from collections.abc import Mapping

LANGUAGE_VERSION = 2
"""Changes whenever rooms say more or other things; version 2 added the question types of VSI-Bench."""

QUOTA: Mapping[str, int] = types.MappingProxyType(
    {
        "direction": 3,
        "situated_what": 2,
        "situated_is": 3,
        "situated_count": 2,
        "situated_colour": 1,
        "situated_which": 2,
        "count": 3,
        "existence": 3,
        "colour": 2,
        "pattern": 1,
        "relation": 2,
        "nearest": 2,
        "larger": 1,
        "closer": 2,
        "unique": 4,
        "multiple": 4,
        "multi": 8,
    }
)


VIDEO_QUOTA: Mapping[str, int] = types.MappingProxyType(
    {
        "object_counting": 2,
        "object_abs_distance": 3,
        "object_size_estimation": 2,
        "room_size_estimation": 1,
        "object_rel_distance": 3,
        "object_rel_direction_easy": 2,
        "object_rel_direction_medium": 2,
        "object_rel_direction_hard": 2,
        "route_planning": 2,
        "obj_appearance_order": 1,
    }
)


VIEW_QUOTA: Mapping[str, int] = types.MappingProxyType(
    {
        "exist": 4,
        "colour": 3,
        "pattern": 2,
        "left_right": 2,
        "count": 3,
        "on": 1,
        "under": 1,
        "beside": 2,
        "caption": 1,
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Margins:
    """A statement is made only where it holds with room to spare; what is between two bounds is left unsaid.

    Attributes:
        clear_pixels: an object is described only where some view shows at least this many pixels of it.
        sure_degrees: an object is in a quarter (front, left, ...) when its bearing is this near its axis.
        maybe_degrees: it certainly lies outside when its bearing is at least this far from the axis.
        beside: metres between two boxes that are certainly next to each other.
        apart: metres between two boxes that are certainly not next to each other.
        nearer: metres by which one distance exceeds another, between centres and between surfaces alike.
        nearer_share: the same as a share of the larger distance.
        larger: ratio of the volumes above which one object is larger.
        reach: metres between an agent and the side of what it stands next to.
        body: metres of free space that an agent needs around itself.
        facing: metres at least between an agent and what it faces.
        distance: metres at least between two things whose distance, or whose direction from each other, is asked.
        from_border_degrees: degrees at least between a bearing and the border of two answers.
    """

    clear_pixels: int = 24
    sure_degrees: float = 38.0
    maybe_degrees: float = 52.0
    beside: float = 0.5
    apart: float = 0.85
    nearer: float = 0.2
    nearer_share: float = 0.1
    larger: float = 1.35
    reach: float = 0.45
    body: float = 0.2
    facing: float = 1.2
    distance: float = 0.6
    from_border_degrees: float = 15.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """How much is said about a room.

    Attributes:
        quota: most records of each type in a room; a type that is not named gets none. "multi" covers all
            types of multi3drefer.
        video_quota: the same for the types of VSI-Bench.
        captions: most objects that get captions; None = every clearly visible object.
        situations: most places where an agent stands.
        margins: how clear a fact must be.
        balanced: weigh the questions so that answers cannot be guessed from their words (`balance`); False
            draws them as they come.
    """

    quota: Mapping[str, int] = dataclasses.field(default_factory=lambda: QUOTA)
    video_quota: Mapping[str, int] = dataclasses.field(default_factory=lambda: VIDEO_QUOTA)
    captions: int | None = None
    situations: int = 6
    margins: Margins = Margins()
    balanced: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How much is said about one view.

    Attributes:
        quota: most records of each type.
        clear_pixels: an object is named only where the view shows at least this many pixels of it.
        sideways: columns, as a fraction of the width, between objects of which one is further left.
        caption_objects: most objects in a caption.
    """

    quota: Mapping[str, int] = dataclasses.field(default_factory=lambda: VIEW_QUOTA)
    clear_pixels: int = 24
    sideways: float = 0.08
    caption_objects: int = 6
