"""Speed of the correspondence score: sums per voxel and view against all pairs, and a scene of the paper's size.

    python perf/probe.py

Prints medians of several repeats, side by side in one run, and writes results/perf_probe.json with --output.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from stereopsis.files import write_atomic
from stereopsis.probing import correspondence, retrieval
from stereopsis.training.train_run import environment

MOST_PAIRED = 8000
"""Tokens whose matrix of cosines is still made; 23 328, a paper's scene, would take gigabytes."""


def scene(views: int, side: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random features, points on the walls of a room of 5 x 4 x 2.5 m, and validity of nine cells in ten."""
    draw = torch.Generator().manual_seed(seed)
    points = torch.rand(views, side, side, 3, generator=draw) * torch.tensor([5.0, 4.0, 2.5])
    wall = torch.randint(3, (views, side, side), generator=draw)
    points.scatter_(-1, wall[..., None], 0.02)
    valid = torch.rand(views, side, side, generator=draw) < 0.9
    return torch.randn(views, side, side, dim, generator=draw), points, valid


def all_pairs(features: torch.Tensor, points: torch.Tensor, valid: torch.Tensor, voxel: float) -> float:
    """The definition: every cross-view pair of one voxel, from the whole matrix of cosines."""
    kept = features[valid]
    unit = functional.normalize(kept, dim=-1)
    corner = torch.floor(points[valid].double() / voxel).long()
    number = torch.unique(corner, dim=0, return_inverse=True)[1]
    view = torch.arange(len(valid))[:, None, None].expand_as(valid)[valid]
    cosine = unit @ unit.T
    pair = (number[:, None] == number[None]) & (view[:, None] < view[None])
    rows = number[:, None].expand_as(pair)[pair]
    total = torch.zeros(int(number.max()) + 1).index_add(0, rows, cosine[pair])
    count = torch.bincount(rows, minlength=len(total))
    return float((total[count > 0] / count[count > 0]).mean())


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Median over repeats, after one that does not count."""
    run()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--voxel", type=float, default=0.1)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--output", type=Path, default=None)
    args = parser.parse_args()
    rows = []
    for views, side in ((8, 6), (32, 14), (32, 27)):
        features, points, valid = scene(views, side, args.dim, seed=0)
        exact = correspondence(features, points, valid, voxel=args.voxel)
        assert exact.score is not None
        ours = seconds(lambda: correspondence(features, points, valid, voxel=args.voxel), args.repeats)  # noqa: B023
        theirs = difference = None
        if views * side**2 <= MOST_PAIRED:
            difference = abs(exact.score - all_pairs(features, points, valid, args.voxel))
            theirs = seconds(lambda: all_pairs(features, points, valid, args.voxel), args.repeats)  # noqa: B023
        found = seconds(lambda: retrieval(features, points, valid, voxel=args.voxel), 1)  # noqa: B023
        rows.append(
            {
                "views": views,
                "tokens": views * side**2,
                "pairs": exact.pairs,
                "score_seconds": round(ours, 4),
                "all_pairs_seconds": None if theirs is None else round(theirs, 4),
                "ratio": None if theirs is None else round(theirs / ours, 1),
                "difference": difference,
                "retrieval_seconds": round(found, 4),
            }
        )
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*("-" if value is None else f"{value:g}" for value in row.values()))
    Console().print(table)
    if args.output is not None:
        made = environment() | {"command": f"python perf/probe.py --dim {args.dim} --voxel {args.voxel}"}
        record = {"environment": made, "seed": 0, "torch_threads": torch.get_num_threads(), "rows": rows}
        write_atomic(args.output, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
