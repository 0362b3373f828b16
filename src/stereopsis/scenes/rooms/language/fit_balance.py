"""Fit the shipped answer balance: `python -m stereopsis.scenes.rooms.language.fit_balance --rooms 1500`.

To be run again whenever the rooms or the questions change; a test of what a blind reader can guess says when.
"""

import argparse
import random
import sys
from pathlib import Path

from stereopsis.scenes.rooms.language.annotate import survey
from stereopsis.scenes.rooms.language.balance import WEIGHTS_FILE, Candidate, Draft, fit, write_weights
from stereopsis.scenes.rooms.language.config import LanguageConfig, ViewConfig
from stereopsis.scenes.rooms.language.splits import split_seeds
from stereopsis.scenes.rooms.language.views import view_candidates


def _unworded(rng: random.Random) -> Draft:
    """Stands in for the words, which the fit does not need."""
    return Draft(str(rng.random()))


def gather_candidates(rooms: int, offset: int) -> tuple[list[list[Candidate]], list[list[Candidate]]]:
    """Everything that could be asked about training rooms, per room, and about their views, per view."""
    from stereopsis.scenes.rooms.room import render_room

    of_rooms, of_views = [], []
    for seed in split_seeds("train", rooms, offset):
        room = render_room(seed)
        rng = random.Random(f"fit {seed}")
        found = survey(room.scene, rng, LanguageConfig())[3]
        of_rooms.append([c._replace(draft=_unworded) for c in found])
        for index in range(0, len(room.instances), 4):
            seen = view_candidates(room.scene, room.instances[index], rng, ViewConfig())
            of_views.append([c._replace(draft=_unworded) for c in seen])
    return of_rooms, of_views


def main() -> None:
    """Fit over training rooms and write the weights next to this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rooms", type=int, default=1500, help="training rooms to fit on")
    parser.add_argument("--offset", type=int, default=5_000_000, help="first training seed to use")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name(WEIGHTS_FILE), help="file to write")
    options = parser.parse_args()
    of_rooms, of_views = gather_candidates(options.rooms, options.offset)
    print(f"{sum(map(len, of_rooms))} candidates in {len(of_rooms)} rooms; fitting", file=sys.stderr)
    weights = {
        "room": fit(of_rooms, LanguageConfig().quota, seed=0),
        "view": fit(of_views, ViewConfig().quota, seed=0),
    }
    write_weights(weights, options.out)
    print(f"wrote {options.out} ({options.out.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
