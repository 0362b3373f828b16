"""Object boxes from geometry alone: what stands apart once floor, walls and ceiling are taken away.

A stand-in for a trained 3D detector (Mask3D in Video-3D-LLM's pipeline) on captures that nobody has run one
on. It knows no categories, and cannot see what is flat on a wall (doors, windows, pictures).
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage, sparse

from stereopsis.geometry.boxes import box_from_points, iou
from stereopsis.geometry.room_shell import (
    Voxels,
    Wall,
    ceiling_layer,
    find_walls,
    floor_layer,
    inner_voxels,
    occupied_voxels,
    tall_columns,
)

_ALL_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
_TOPS = 0.8  # factor of the score of columns under level tops
_DEEPER = 0.85  # factor of the score for every cut that a piece needed


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Settings of `propose_boxes`; lengths in metres.

    Attributes:
        voxel: edge length of a voxel; points further apart than this fall into separate pieces.
        min_voxels: smallest piece.
        min_side: the longest side of a box must reach this.
        max_side: boxes with a longer side are left out.
        floor_gap: what lies up to this much above the floor counts as floor.
        wall_length: least length of a wall, seen over at least `wall_share` of the room's height.
        wall_share: see there.
        column_share: columns that are filled over this share of the height are taken for partitions, once.
        change: a piece is proposed where its box shares less than this (IoU) with the piece it broke off from.
        overlap: of two boxes with a greater IoU the lower-scored is left out.
        furniture_height: level tops are looked for below this height as well, where cupboards hang above them.
        max_proposals: at most this many, best first.
    """

    voxel: float = 0.05
    min_voxels: int = 12
    min_side: float = 0.12
    max_side: float = 4.0
    floor_gap: float = 0.06
    wall_length: float = 1.0
    wall_share: float = 0.5
    column_share: float = 0.75
    change: float = 0.6
    overlap: float = 0.8
    furniture_height: float = 1.3
    max_proposals: int = 100


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BoxProposals:
    """Boxes [n, 6] cx cy cz dx dy dz, metres, and scores [n] in 0..1, best first."""

    boxes: Float[np.ndarray, "n 6"]
    scores: Float[np.ndarray, "n"]


def propose_boxes(points: Float[np.ndarray, "n 3"], config: ClusterConfig | None = None) -> BoxProposals:
    """Boxes around the pieces that a room's points fall into without floor, walls and ceiling.

    1. Points become voxels. The floor is the most widely covered layer near the bottom; the ceiling is
       `ceiling_height`'s; walls are upright planes across x or y that are seen along at least a metre and
       over half of the room's height. Their voxels are taken away.
    2. What remains is cut at every height, from the floor upwards, and falls into connected pieces. A piece
       whose box differs enough from the one it broke off from is proposed: what stands on the floor at the
       lowest cut, what stands on a table at the cut above the table top. The part below such a cut is
       proposed as well (the table without its lamp), and where the voxels under a piece continue to the floor
       (a refrigerator beside a counter), the whole column.
    3. Seen from above, neighbouring columns whose tops lie level belong together (a mattress, a table top), and
       are proposed down to their lowest voxel: this parts furniture that touches.
    4. Boxes that end near the floor or a wall are extended to it: that margin was taken away in step 1.

    The score grows with the number of voxels and falls with every cut that was needed; it ranks proposals,
    it is no probability.

    Args:
        points: [n, 3] in the aligned frame (z up, walls along x and y), metres.
        config: None: the defaults.

    Raises:
        ValueError: NaN or inf points, or a config without sense.
    """
    config = ClusterConfig() if config is None else config
    if not (config.voxel > 0 and config.min_voxels >= 1 and 0 < config.overlap <= 1 and config.max_proposals >= 1):
        raise ValueError(f"cluster settings {config} make no sense; expected positive sizes and counts")
    if not np.isfinite(points).all():
        raise ValueError("points hold NaN or inf; drop invalid points first")
    none = BoxProposals(boxes=np.zeros((0, 6)), scores=np.zeros(0))
    if len(points) < config.min_voxels:
        return none
    voxels = occupied_voxels(points, config.voxel)
    floor = floor_layer(voxels)
    top = ceiling_layer(points, voxels)
    walls = find_walls(voxels, floor, top, share=config.wall_share, length=config.wall_length)
    kept = inner_voxels(voxels, floor, top, walls, floor_gap=config.floor_gap)
    found = _Found()
    # Partitions that are no walls of the whole room would tie everything beside them together, but a cupboard
    # up to the ceiling looks like one: look with and without.
    tall = tall_columns(voxels, floor, top, share=config.column_share)
    for without in (kept, kept & ~tall) if (kept & tall).any() else (kept,):
        if without.any():
            _cut_upwards(_some(voxels, without), config, found)
    standing = kept & (voxels.index[:, 2] < floor + round(config.furniture_height / config.voxel))
    for part in (kept, standing):
        if part.any():
            _level_tops(_some(voxels, part), config, found)
    if not found.boxes:
        return none
    boxes, scores = np.stack(found.boxes), np.array(found.scores)
    boxes = _extend(boxes, float(voxels.origin[2] + (floor + 0.5) * config.voxel), walls, config)
    longest = boxes[:, 3:].max(axis=1)
    sound = (longest >= config.min_side) & (longest <= config.max_side)
    return _best(boxes[sound], scores[sound], config)


def _some(voxels: Voxels, kept: Bool[np.ndarray, "n"]) -> Voxels:
    return dataclasses.replace(voxels, index=voxels.index[kept], low=voxels.low[kept], high=voxels.high[kept])


@dataclasses.dataclass(kw_only=True, eq=False)
class _Found:
    """Boxes and scores so far."""

    boxes: list[np.ndarray] = dataclasses.field(default_factory=list)
    scores: list[float] = dataclasses.field(default_factory=list)

    def add(self, voxels: Voxels, members: np.ndarray, weight: float) -> np.ndarray:
        """Propose the box around some voxels, and return it."""
        box = box_from_points(np.concatenate([voxels.low[members], voxels.high[members]]))
        self.boxes.append(box)
        self.scores.append(weight * _fullness(len(members)) * _furniture_like(box))
        return box


def _cut_upwards(voxels: Voxels, config: ClusterConfig, found: _Found) -> None:
    """Propose pieces of every cut that differ from what they broke off from; see `propose_boxes`, step 2."""
    x, y, z = voxels.index.T
    grid = np.zeros(voxels.shape, dtype=bool)
    grid[x, y, z] = True
    owner = np.full(len(z), -1)  # number of the proposed piece that each voxel belongs to
    pieces: list[np.ndarray] = []  # the box of each piece, by its number
    depths: list[int] = []  # from how many pieces, one within the other, each broke off
    for cut in range(int(z.min()), int(z.max()) + 1):
        broken: dict[int, list[np.ndarray]] = {}
        for inside in _connected(grid[:, :, cut:], voxels.index, np.flatnonzero(z >= cut), cut, config.min_voxels):
            parent = int(owner[inside[0]])
            box = box_from_points(np.concatenate([voxels.low[inside], voxels.high[inside]]))
            if parent >= 0:
                if float(iou(box[None], pieces[parent][None])[0, 0]) >= config.change:
                    continue
                broken.setdefault(parent, []).append(inside)
            depth = 0 if parent < 0 else depths[parent] + 1
            found.add(voxels, inside, _DEEPER**depth)
            owner[inside] = len(pieces)
            pieces.append(box)
            depths.append(depth)
        for parent, children in broken.items():
            below = np.flatnonzero((owner == parent) & (z < cut))
            _propose_below(voxels, grid, below, children, cut, 0.9 * _DEEPER ** depths[parent], config, found)


def _connected(
    grid: np.ndarray, index: np.ndarray, members: np.ndarray, cut: int, min_voxels: int
) -> list[Int[np.ndarray, "k"]]:
    """The members of each connected piece of a grid whose layer 0 is layer `cut` of the members' indices."""
    labels = ndimage.label(grid, structure=_ALL_NEIGHBOURS)[0]
    label = labels[index[members, 0], index[members, 1], index[members, 2] - cut]
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[order], prepend=0))
    return [piece for piece in np.split(members[order], starts[1:]) if len(piece) >= min_voxels]


def _level_tops(voxels: Voxels, config: ClusterConfig, found: _Found) -> None:
    """Propose the columns under every level part of the height map; see `propose_boxes`, step 3."""
    x, y, z = voxels.index.T
    top = np.full(voxels.shape[:2], -1)
    np.maximum.at(top, (x, y), z)
    cell = np.arange(top.size).reshape(top.shape)
    edges = []
    for here, there in (
        ((slice(1, None), slice(None)), (slice(-1), slice(None))),
        ((slice(None), slice(1, None)), (slice(None), slice(-1))),
    ):
        level = (top[here] >= 0) & (top[there] >= 0) & (np.abs(top[here] - top[there]) <= 1)
        edges.append(np.stack([cell[here][level], cell[there][level]]))
    first, second = np.concatenate(edges, axis=1)
    graph = sparse.coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(top.size, top.size))
    region = sparse.csgraph.connected_components(graph, directed=False)[1][cell[x, y]]
    order = np.argsort(region, kind="stable")
    for piece in np.split(order, np.flatnonzero(np.diff(region[order])) + 1):
        if len(piece) >= 2 * config.min_voxels:
            found.add(voxels, piece, _TOPS)


def _propose_below(
    voxels: Voxels,
    grid: np.ndarray,
    below: np.ndarray,
    children: list[np.ndarray],
    cut: int,
    weight: float,
    config: ClusterConfig,
    found: _Found,
) -> None:
    """Propose what lies below a cut: all of it, the columns that go on above, and what ends below it."""
    if len(below) < config.min_voxels:
        return
    found.add(voxels, below, weight)
    for inside in children:
        column = _column_below(voxels, inside, below, cut)
        if len(column):
            found.add(voxels, np.concatenate([inside, column]), weight)
    above = ndimage.binary_dilation(grid[:, :, cut:].any(axis=2), np.ones((3, 3)))
    ended = below[~above[voxels.index[below, 0], voxels.index[below, 1]]]
    if len(ended) >= config.min_voxels:
        alone = np.zeros((*voxels.shape[:2], cut), dtype=bool)
        alone[tuple(voxels.index[ended].T)] = True
        for piece in _connected(alone, voxels.index, ended, 0, config.min_voxels):
            found.add(voxels, piece, weight)


def _fullness(count: int) -> float:
    """0..1, half at 55 voxels."""
    return float(1 - np.exp(-count / 80))


def _furniture_like(box: Float[np.ndarray, "6"]) -> float:
    """1 for the sizes that furniture has; less for wide boxes (several pieces) and for sheets (parts of surfaces)."""
    wide = min(1.0, 2.5 / max(float(box[3]), float(box[4]), 1e-9))
    thin = min(1.0, 0.4 + float(box[3:].min()) / 0.25)
    return wide * thin


def _column_below(voxels: Voxels, inside: np.ndarray, rest: np.ndarray, cut: int) -> Int[np.ndarray, "k"]:
    """Of the voxels below a piece those under its outline, if they go on in most layers; otherwise none."""
    plan = np.zeros(voxels.shape[:2], dtype=bool)
    plan[voxels.index[inside, 0], voxels.index[inside, 1]] = True
    under = rest[plan[voxels.index[rest, 0], voxels.index[rest, 1]]]
    if not len(under):
        return under
    lowest = int(voxels.index[rest, 2].min())
    layers = np.bincount(voxels.index[under, 2] - lowest, minlength=cut - lowest)
    bottom = np.bincount(voxels.index[inside, 2])[cut : cut + 3]
    return under if (layers >= 0.25 * bottom.max()).mean() >= 0.8 else under[:0]


def _extend(
    boxes: Float[np.ndarray, "n 6"], floor: float, walls: list[Wall], config: ClusterConfig
) -> Float[np.ndarray, "n 6"]:
    """Boxes that end just above the floor or just before a wall reach it afterwards."""
    low, high = boxes[:, :3] - boxes[:, 3:] / 2, boxes[:, :3] + boxes[:, 3:] / 2
    reach = 3.2 * config.voxel + config.floor_gap
    low[:, 2] = np.where(np.abs(low[:, 2] - floor) <= reach, np.minimum(low[:, 2], floor), low[:, 2])
    for wall in walls:
        beside = (high[:, 1 - wall.axis] >= wall.begin) & (low[:, 1 - wall.axis] <= wall.end)
        for edge, outwards in ((low, 1.0), (high, -1.0)):
            gap = outwards * (edge[:, wall.axis] - wall.position)
            touching = beside & (gap > 0) & (gap <= 2.6 * config.voxel)
            edge[:, wall.axis] = np.where(touching, wall.position, edge[:, wall.axis])
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def _best(boxes: Float[np.ndarray, "n 6"], scores: Float[np.ndarray, "n"], config: ClusterConfig) -> BoxProposals:
    """Best first, without near-duplicates of better ones."""
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    shared = iou(boxes, boxes)
    kept: list[int] = []
    for number in range(len(boxes)):
        if len(kept) == config.max_proposals:
            break
        if not kept or shared[number, kept].max() <= config.overlap:
            kept.append(number)
    return BoxProposals(boxes=boxes[kept], scores=scores[kept])
