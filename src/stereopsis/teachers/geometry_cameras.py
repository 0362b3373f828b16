"""Cameras from matched tokens: what a geometry network's features and depths say about poses, in closed form.

Tokens of two views that are each other's most similar are taken to show one spot; each has a place in its own
camera's frame by its depth. Rigid motions between triples of both sets of places (Kabsch 1976; RANSAC, Fischler and
Bolles 1981) are proposed, and the one that lays the most tokens onto tokens like them is the relative pose. Views
are chained to the first one along the pairs that agree best. Needs no more than a `Geometry`; complements the
network's own camera head, which answers also where views share nothing.
"""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from stereopsis.teachers.geometry_network import Geometry

_TRIPLES, _KEPT = 400, 20  # sampled, and looked at closely
_LEAST = 6  # matches from which a motion is estimated
_LEAST_SIMILAR = 0.4  # cosine of a match
_EXPECTED = 0.35  # cosine above which two tokens at one place speak for a motion, and below which against it
_LEAST_AGREEMENT = 3.0  # sum of the cosines beyond that which makes a pair of views count


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MatchedCameras:
    """Poses of one scene's views.

    Attributes:
        rotation: [views 3 3] camera to the first view's camera frame.
        translation: [views 3] camera centres there, metres.
        matched: [views] False where too little matches; such views have the camera head's pose.
    """

    rotation: Float[Tensor, "views 3 3"]
    translation: Float[Tensor, "views 3"]
    matched: Bool[Tensor, "views"]


@torch.no_grad()
def matched_cameras(geometry: Geometry, scene: int = 0, *, seed: int = 0) -> MatchedCameras:
    """Poses of the views of one scene of a batch.

    Args:
        geometry: what the network found.
        scene: which scene.
        seed: of the sampled triples; the same seed gives the same poses.
    """
    generator = torch.Generator().manual_seed(seed)
    features = functional.normalize(geometry.tokens.patches[scene].float().flatten(1, 2), dim=-1).cpu()
    places = token_places(geometry, scene).cpu()
    tokens = [_Tokens(features=f, places=p) for f, p in zip(features, places, strict=True)]
    views = len(tokens)
    motions: dict[tuple[int, int], _Motion] = {}
    for a in range(views):
        for b in range(a + 1, views):
            motion = _motion(tokens[a], tokens[b], generator)
            if motion is not None:
                motions[a, b], motions[b, a] = motion, motion.inverse()
    rotation = geometry.rotation[scene].clone()
    translation = geometry.translation[scene].clone()
    matched = torch.zeros(views, dtype=torch.bool, device=rotation.device)
    rotation[0], translation[0], matched[0] = torch.eye(3), 0, True
    while True:
        steps = {pair: m for pair, m in motions.items() if matched[pair[0]] and not matched[pair[1]]}
        if not steps:
            return MatchedCameras(rotation=rotation, translation=translation, matched=matched)
        (known, new), motion = max(steps.items(), key=lambda item: (item[1].agreement, item[0]))
        rotation[new] = rotation[known] @ motion.rotation.to(rotation)
        translation[new] = rotation[known] @ motion.translation.to(rotation) + translation[known]
        matched[new] = True


def token_places(geometry: Geometry, scene: int) -> Float[Tensor, "views tokens 3"]:
    """Where each token's centre lies in its own camera's frame: along its ray, at its mean ln depth."""
    grid = geometry.tokens.patches.shape[2]
    depth = functional.adaptive_avg_pool2d(geometry.log_depth[scene], grid).exp()
    focal = geometry.log_focal[scene].mean().exp()  # one camera took all views
    ray = ((torch.arange(grid, device=depth.device) + 0.5) / grid - 0.5) / focal
    return torch.stack([ray * depth, ray[:, None] * depth, depth], dim=-1).flatten(1, 2)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Motion:
    """From one camera's frame to another's, and how well the tokens that it lays upon each other agree."""

    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "3"]
    agreement: float

    def inverse(self) -> "_Motion":
        R = self.rotation.T
        return _Motion(rotation=R, translation=-R @ self.translation, agreement=self.agreement)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Tokens:
    """One view's tokens: unit features, and places in its camera's frame."""

    features: Float[Tensor, "tokens channels"]
    places: Float[Tensor, "tokens 3"]


def _motion(a: _Tokens, b: _Tokens, generator: torch.Generator) -> _Motion | None:
    """From camera b's frame to camera a's; None where too little agrees."""
    of_a, of_b = mutual_matches(a.features, b.features)
    if len(of_a) < _LEAST:
        return None
    target, source = a.places[of_a], b.places[of_b]
    triples = torch.rand(_TRIPLES, len(source), generator=generator).argsort(dim=1)[:, :3]
    rotations, moves = rigid(source[triples], target[triples])
    error = _errors(rotations, moves, source, target)
    best = (1 - error.square()).clamp(min=0).sum(dim=1).topk(_KEPT).indices
    rotations, moves = rotations[best], moves[best]
    everything = (source.expand(_KEPT, -1, -1), target.expand(_KEPT, -1, -1))
    for _ in range(3):  # fit to all matches that agree
        agree = (_errors(rotations, moves, source, target) < 1).to(source)
        fitted = rigid(*everything, agree)
        enough = agree.sum(dim=1) >= _LEAST
        rotations = torch.where(enough[:, None, None], fitted[0], rotations)
        moves = torch.where(enough[:, None], fitted[1], moves)
    agreement = _agreement(rotations, moves, a, b)
    k = int(agreement.argmax())
    if agreement[k] < _LEAST_AGREEMENT:
        return None
    return _Motion(rotation=rotations[k], translation=moves[k], agreement=float(agreement[k]))


def _moved(
    rotations: Float[Tensor, "k 3 3"], moves: Float[Tensor, "k 3"], places: Float[Tensor, "n 3"]
) -> Float[Tensor, "k n 3"]:
    return torch.einsum("kij,nj->kni", rotations, places) + moves[:, None]


def _tolerance(places: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
    """Metres; tokens are coarse, and depths err in proportion."""
    return 0.1 + 0.08 * places[..., 2].clamp(min=0.5)


def _errors(rotations: Tensor, moves: Tensor, source: Tensor, target: Tensor) -> Float[Tensor, "k n"]:
    """How far each match is from agreeing with each motion; 1 = just not."""
    return (_moved(rotations, moves, source) - target).norm(dim=-1) / _tolerance(target)


def _agreement(rotations: Tensor, moves: Tensor, a: _Tokens, b: _Tokens) -> Float[Tensor, "k"]:
    """How alike ALL tokens are that each motion brings together, matched or not."""
    moved = _moved(rotations, moves, b.places)
    apart, nearest = torch.cdist(moved, a.places.expand(len(moved), -1, -1)).min(dim=-1)
    cosine = (b.features * a.features[nearest]).sum(dim=-1)
    return ((cosine - _EXPECTED) * (apart < _tolerance(moved))).sum(dim=1)


def mutual_matches(
    features_a: Float[Tensor, "a channels"], features_b: Float[Tensor, "b channels"]
) -> tuple[Int64[Tensor, "matches"], Int64[Tensor, "matches"]]:
    """Indices of tokens (unit features) that are each other's most similar, and similar enough."""
    cosine = features_a @ features_b.T
    best, partner = cosine.max(dim=1)
    mutual = (cosine.argmax(dim=0)[partner] == torch.arange(len(partner))) & (best > _LEAST_SIMILAR)
    return mutual.nonzero()[:, 0], partner[mutual]


def rigid(
    source: Float[Tensor, "sets n 3"],
    target: Float[Tensor, "sets n 3"],
    weights: Float[Tensor, "sets n"] | None = None,
) -> tuple[Float[Tensor, "sets 3 3"], Float[Tensor, "sets 3"]]:
    """Rotations and translations that best map each set of points onto its target (Kabsch 1976)."""
    weights = torch.ones_like(source[..., 0]) if weights is None else weights
    share = (weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-9))[..., None]
    mean_s, mean_t = (share * source).sum(dim=1), (share * target).sum(dim=1)
    U, _, Vh = torch.linalg.svd((share * (target - mean_t[:, None])).transpose(1, 2) @ (source - mean_s[:, None]))
    sign = torch.ones(len(U), 3, dtype=U.dtype)
    sign[:, 2] = torch.sign(torch.linalg.det(U @ Vh))
    R = U * sign[:, None] @ Vh
    return R, mean_t - torch.einsum("kij,kj->ki", R, mean_s)
