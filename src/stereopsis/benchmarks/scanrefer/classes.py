"""ScanRefer's "unique" and "multiple": is another annotated object of the same class in the scene?

The class of an object is the NYU40 class of its ScanNet name; all classes but the nineteen below count as one,
"others" (ScanRefer's lookup and M3DRef-CLIP's and Video-3D-LLM's preparation agree in this). Only objects that the
annotation file itself speaks of are counted, so a part of a split gives other types than the whole.
"""

from collections import Counter
from collections.abc import Iterable

OTHERS = "others"
# fmt: off
_NAMES: dict[str, tuple[str, ...]] = {
    "wall": ("bath walls", "closet wall", "closet walls", "door wall", "pantry wall", "pantry walls", "shower wall",
             "shower walls", "wall"),
    "floor": ("closet floor", "floor", "shower floor"),
    "cabinet": ("bathroom cabinet", "bathroom vanity", "cabinet", "cabinet doors", "cabinets", "file cabinet",
                "file cabinets", "kitchen cabinet", "kitchen cabinets", "media center", "open kitchen cabinet",
                "trash cabinet"),
    "bed": ("air mattress", "bed", "loft bed", "mattress", "sofa bed"),
    "chair": ("armchair", "chair", "folded chair", "folded chairs", "massage chair", "office chair", "recliner chair",
              "rocking chair", "sofa chair", "stack of chairs", "stack of folded chairs"),
    "sofa": ("couch", "sofa"),
    "table": ("air hockey table", "coffee table", "dining table", "end table", "folded table", "round table",
              "side table", "table"),
    "door": ("bathroom stall door", "cabinet door", "closet door", "closet doorframe", "closet doors", "door",
             "doorframe", "doors", "glass doors", "mirror doors", "shower door", "sliding door"),
    "window": ("window",),
    "bookshelf": ("bookshelf", "bookshelves"),
    "picture": ("painting", "picture", "pictures", "poster"),
    "counter": ("bathroom counter", "counter", "kitchen counter"),
    "desk": ("desk",),
    "curtain": ("curtain", "curtains"),
    "refrigerator": ("cooler", "mini fridge", "refrigerator"),
    "shower curtain": ("shower curtain",),
    "toilet": ("toilet", "urinal"),
    "sink": ("sink",),
    "bathtub": ("bathtub",),
}
# fmt: on
_CLASS_OF = {name: kind for kind, names in _NAMES.items() for name in names}


def object_class(name: str) -> str:
    """The class that a ScanNet object name ("office_chair") counts as."""
    return _CLASS_OF.get(name.replace("_", " "), OTHERS)


def unique_or_multiple(objects: Iterable[tuple[str, int, str]]) -> list[str]:
    """For each (scene id, object id, object name), in order: "unique" or "multiple".

    An object that is named more than once counts once, under the name that comes first.
    """
    listed = list(objects)
    first_name: dict[tuple[str, int], str] = {}
    for scene_id, object_id, name in listed:
        first_name.setdefault((scene_id, object_id), name)
    counts = Counter((scene_id, object_class(name)) for (scene_id, _), name in first_name.items())
    return ["unique" if counts[scene_id, object_class(name)] <= 1 else "multiple" for scene_id, _, name in listed]
