"""Train, validation and test rooms are different rooms: their seeds never meet."""

import types
from collections.abc import Mapping

from stereopsis.errors import SceneError, did_you_mean

SPLITS: Mapping[str, range] = types.MappingProxyType(
    {
        "train": range(0, 10_000_000),
        "val": range(10_000_000, 20_000_000),
        "test": range(20_000_000, 30_000_000),
    }
)


def split_seeds(split: str, count: int, offset: int = 0) -> range:
    """The seeds of `count` rooms of a split, leaving out its first `offset`.

    Raises:
        SceneError: unknown split, negative numbers, or a range that runs past the split's end.
    """
    if split not in SPLITS:
        raise SceneError(f"unknown split '{split}'{did_you_mean(split, SPLITS)}")
    if count < 0 or offset < 0:
        raise SceneError(f"count and offset must not be negative, got count={count}, offset={offset}")
    seeds = SPLITS[split]
    if offset + count > len(seeds):
        raise SceneError(
            f"split '{split}' has {len(seeds)} seeds, but offset {offset} + count {count} needs "
            f"{offset + count}: it would run into another split; "
            "ask for fewer rooms or a smaller offset"
        )
    return seeds[offset : offset + count]


def split_of(seed: int) -> str:
    """The split that a room's seed belongs to.

    Raises:
        SceneError: no split holds the seed.
    """
    for name, seeds in SPLITS.items():
        if seed in seeds:
            return name
    raise SceneError(f"seed {seed} belongs to no split; the splits are {dict(SPLITS)}")
