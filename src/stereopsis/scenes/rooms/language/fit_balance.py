"""Fit the shipped answer balance: `python -m stereopsis.scenes.rooms.language.fit_balance --rooms 1500`.

Three families have weights of their own: questions about rooms, about single views, and VSI-Bench's about the video. To
be run again whenever the rooms or the questions change; a test of what a blind reader can guess says when.
"""

import argparse
import random
import sys
from pathlib import Path

from stereopsis.scenes.rooms.language.annotate import survey
from stereopsis.scenes.rooms.language.balance import (
    WEIGHTS_FILE,
    Candidate,
    Draft,
    fit,
    shipped_weights,
    write_weights,
)
from stereopsis.scenes.rooms.language.config import LanguageConfig, ViewConfig
from stereopsis.scenes.rooms.language.splits import split_seeds
from stereopsis.scenes.rooms.language.video import video_candidates
from stereopsis.scenes.rooms.language.views import view_candidates

Rooms = list[list[Candidate]]
FAMILIES = ("room", "view", "video")


def _unworded(rng: random.Random) -> Draft:
    """Stands in for the words, which the fit does not need."""
    return Draft(str(rng.random()))


def gather_candidates(rooms: int, offset: int) -> dict[str, Rooms]:
    """Everything that could be asked about training rooms, about their views and about their videos."""
    from stereopsis.scenes.rooms.room import render_room

    found: dict[str, Rooms] = {family: [] for family in FAMILIES}
    for seed in split_seeds("train", rooms, offset):
        room = render_room(seed)
        rng = random.Random(f"fit {seed}")
        facts, names, _, of_room = survey(room.scene, rng, LanguageConfig())
        found["room"].append(of_room)
        found["video"].append(video_candidates(room.scene, facts, names, random.Random(f"fit video {seed}")))
        for index in range(0, len(room.instances), 4):
            found["view"].append(view_candidates(room.scene, room.instances[index], rng, ViewConfig()))
    return {family: [[c._replace(draft=_unworded) for c in each] for each in all_] for family, all_ in found.items()}


def main() -> None:
    """Fit over training rooms and write the weights next to this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rooms", type=int, default=1500, help="training rooms to fit on")
    parser.add_argument("--offset", type=int, default=5_000_000, help="first training seed to use")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES, help="the others stay as shipped")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name(WEIGHTS_FILE), help="file to write")
    options = parser.parse_args()
    found = gather_candidates(options.rooms, options.offset)
    quotas = {"room": LanguageConfig().quota, "view": ViewConfig().quota, "video": LanguageConfig().video_quota}
    weights = {family: shipped_weights(family) for family in FAMILIES}
    for family in options.families:
        print(f"{family}: {sum(map(len, found[family]))} candidates; fitting", file=sys.stderr)
        weights[family] = fit(found[family], quotas[family], seed=0)
    write_weights(weights, options.out)
    print(f"wrote {options.out} ({options.out.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
