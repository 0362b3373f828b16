"""The probe: exact against slow references, invariant to what must not matter, and a round trip through the CLI."""

import itertools
import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from stereopsis.errors import StereopsisError
from stereopsis.geometry.voxels import voxel_groups
from stereopsis.probing import RidgeProbe, correlate, correspondence, quartile_table, retrieval
from stereopsis.probing.downstream import join
from stereopsis.probing.readouts import CellGeometry
from stereopsis.probing.report import add_downstream, add_models

VOXEL = 0.5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(views: int = 5, rows: int = 3, cols: int = 4, dim: int = 6, seed: int = 0):
    draw = generator(seed)
    points = torch.rand(views, rows, cols, 3, generator=draw) * torch.tensor([2.0, 2.0, 0.4]) - 0.7
    valid = torch.rand(views, rows, cols, generator=draw) < 0.8
    return torch.randn(views, rows, cols, dim, generator=draw), points, valid


def slow(features, points, valid, voxel):
    """Pairs by loops over numpy's voxel groups: (mean over voxels of mean cosine, mean cosine of all other pairs)."""
    groups = voxel_groups(points.double().numpy(), voxel, valid.numpy()).groups
    unit = functional.normalize(features.double(), dim=-1)
    same: dict[int, list[float]] = {}
    others = []
    cells = [c for c in itertools.product(*map(range, valid.shape)) if valid[c]]
    for a, b in itertools.combinations(cells, 2):
        if a[0] == b[0]:
            continue
        cosine = float(unit[a] @ unit[b])
        if groups[a] == groups[b]:
            same.setdefault(int(groups[a]), []).append(cosine)
        else:
            others.append(cosine)
    return np.mean([np.mean(v) for v in same.values()]), np.mean(others), sum(map(len, same.values()))


@pytest.mark.parametrize("seed", range(3))
def test_score_and_baseline_equal_the_pairwise_ones(seed):
    features, points, valid = scene(seed=seed)
    found = correspondence(features.double(), points, valid, voxel=VOXEL)
    score, random, pairs = slow(features, points, valid, VOXEL)
    assert (found.score, found.random) == pytest.approx((score, random), abs=1e-6)
    assert found.pairs == pairs


def test_score_equals_the_pairwise_one_on_the_real_kitchen(kitchen_views):
    points, valid, features = kitchen_views
    found = correspondence(features.double(), points, valid, voxel=0.1)
    score, random, pairs = slow(features, points, valid, 0.1)
    assert pairs > 20
    assert (found.score, found.random) == pytest.approx((score, random), abs=1e-6)


@pytest.fixture(scope="module")
def kitchen_views(shared_data):
    """Four kitchen views on a grid of 14 x 14, and colours as features."""
    from stereopsis.data.views import cell_coordinates, decode_views
    from stereopsis.scenes.formats import open_scene
    from stereopsis.scenes.prepare import find_captures

    capture = find_captures(shared_data / "seven_scenes_redkitchen")[0]
    views = decode_views(open_scene(capture.path, format=capture.format), [0, 20, 40, 60], size=112)
    cells = cell_coordinates(views, 14, 14)
    colours = functional.adaptive_avg_pool2d(views.images.float(), 14).permute(0, 2, 3, 1)
    return cells.coordinates, cells.valid, colours - 128


def test_scale_rotation_and_order_do_not_matter():
    features, points, valid = scene()
    base = correspondence(features, points, valid, voxel=VOXEL)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator(5))).Q
    lengths = torch.rand(*features.shape[:3], 1, generator=generator(6)) + 0.1
    order = torch.randperm(5, generator=generator(7))
    for other in (
        correspondence(features @ turn, points, valid, voxel=VOXEL),
        correspondence(features * lengths, points, valid, voxel=VOXEL),
        correspondence(features[order], points[order], valid[order], voxel=VOXEL),
    ):
        assert (other.score, other.random, other.pairs) == pytest.approx(
            (base.score, base.random, base.pairs), abs=1e-5
        )


def test_equal_features_score_one_and_their_baseline_too():
    features, points, valid = scene()
    found = correspondence(torch.ones_like(features), points, valid, voxel=VOXEL)
    assert (found.score, found.random, found.gap) == pytest.approx((1, 1, 0), abs=1e-5)


def test_spots_alone_in_the_features_give_one_over_a_low_baseline():
    _, points, valid = scene(views=8)
    voxel = torch.floor(points.double() / VOXEL)
    features = torch.sin(voxel @ torch.randn(3, 64, generator=generator(), dtype=torch.float64) * 40)
    found = correspondence(features, points, valid, voxel=VOXEL)
    assert found.score == pytest.approx(1, abs=1e-6)
    assert abs(found.random) < 0.1
    recalled = retrieval(features, points, valid, voxel=VOXEL)
    assert recalled.recall[1] == 1.0


def test_without_pairs_there_is_no_score():
    features, points, valid = scene()
    valid[1:] = False
    found = correspondence(features, points, valid, voxel=VOXEL)
    assert (found.score, found.random, found.gap, found.pairs) == (None, None, None, 0)
    assert retrieval(features, points, valid, voxel=VOXEL) is None


def test_retrieval_by_loops_and_in_chunks():
    features, points, valid = scene(seed=3)
    groups = voxel_groups(points.double().numpy(), VOXEL, valid.numpy()).groups
    unit = functional.normalize(features, dim=-1)
    cells = [c for c in itertools.product(*map(range, valid.shape)) if valid[c]]
    hits = queries = 0
    for query in cells:
        options = [c for c in cells if c[0] != query[0]]
        if not any(groups[c] == groups[query] for c in options):
            continue
        queries += 1
        best = sorted(options, key=lambda c: -float(unit[c] @ unit[query]))[:5]
        hits += any(groups[c] == groups[query] for c in best)
    for chunk in (7, 1000):
        found = retrieval(features, points, valid, voxel=VOXEL, ks=(5,), chunk=chunk)
        assert found.queries == queries
        assert found.recall[5] == pytest.approx(hits / queries)


def test_chance_is_what_random_features_reach():
    recalls, chances = [], []
    for seed in range(30):
        features, points, valid = scene(seed=seed, dim=16)
        found = retrieval(features, points, valid, voxel=VOXEL)
        recalls.append([found.recall[k] for k in (1, 5, 10)])
        chances.append([found.chance[k] for k in (1, 5, 10)])
    assert np.mean(recalls, axis=0) == pytest.approx(np.mean(chances, axis=0), abs=0.04)


def _readable(seed: int, noise: float) -> tuple[torch.Tensor, CellGeometry]:
    draw = generator(seed)
    target = torch.randn(3, 4, 5, 2, generator=draw)
    weights = torch.randn(2, 7, generator=generator(99))
    features = target @ weights + noise * torch.randn(3, 4, 5, 7, generator=draw) + 3
    valid = torch.rand(3, 4, 5, generator=draw) < 0.9
    return features, CellGeometry(targets={"occupancy": target}, valid={"occupancy": valid})


def test_a_readable_quantity_is_read_and_an_unreadable_one_is_not():
    for noise, expected in ((0.01, 0.99), (100.0, 0.1)):
        probe = RidgeProbe(7, names=("occupancy",))
        for seed in range(6):
            (probe.train if seed % 2 else probe.test)(*_readable(seed, noise))
        found = probe.results()["occupancy"]
        assert found.r2 > expected if noise < 1 else found.r2 < expected


def test_ridge_equals_the_direct_solution():
    features, geometry = _readable(0, 0.5)
    probe = RidgeProbe(7, names=("occupancy",), penalty=0.3)
    probe.train(features, geometry)
    probe.test(features, geometry)
    keep = geometry.valid["occupancy"]
    x, y = features[keep].double(), geometry.targets["occupancy"][keep].double()
    standard = (x - x.mean(0)) / x.std(0, correction=0)
    weights = torch.linalg.solve(
        standard.T @ standard / len(x) + 0.3 * torch.eye(7, dtype=torch.float64), standard.T @ (y - y.mean(0)) / len(x)
    )
    predicted = standard @ weights + y.mean(0)
    r2 = (1 - (y - predicted).square().sum(0) / (y - y.mean(0)).square().sum(0)).mean()
    assert probe.results()["occupancy"].r2 == pytest.approx(float(r2), abs=1e-9)


def test_quartiles_by_hand():
    scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    values = [0.0, 0.0, 10.0, 20.0, 50.0, 50.0, 100.0, 100.0]
    table = quartile_table(scores, values, [f"s{i}" for i in range(8)])
    assert [m.mean for m in table.means] == [0.0, 15.0, 50.0, 100.0]
    assert table.samples == (2, 2, 2, 2)
    assert table.bounds[0] == (0.1, 0.2)
    with pytest.raises(StereopsisError, match="at least 4"):
        quartile_table([1.0], [1.0], ["a"])


def test_samples_of_one_scene_stay_in_one_quarter():
    table = quartile_table([0.5] * 6 + [0.9] * 2, [float(i) for i in range(8)], ["a"] * 6 + ["b"] * 2)
    assert sum(table.samples) == 8
    assert sorted(table.samples) == [0, 0, 2, 6]


def test_correlation_is_scipys():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = 0.7 * x + rng.normal(size=40)
    found = correlate(x.tolist(), y.tolist())
    assert found.pearson.mean == pytest.approx(stats.pearsonr(x, y)[0])
    assert found.spearman.mean == pytest.approx(stats.spearmanr(x, y)[0])
    assert found.pearson.low < found.pearson.mean < found.pearson.high
    flat = correlate([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
    assert np.isnan(flat.pearson.mean)


def test_samples_join_their_scenes_score():
    records = [
        {"task": "sqa3d", "scene_id": "a", "scores": {"em": 1.0}},
        {"task": "sqa3d", "scene_id": "b", "scores": {"em": 0.0}},
        {"task": "scanqa", "scene_id": "a", "scores": {"em": 1.0}},
        {"task": "sqa3d", "scene_id": "unknown", "scores": {"em": 1.0}},
    ]
    found = join({"a": 0.4, "b": None}, records, "sqa3d")
    assert (found.scores, found.values, found.scenes) == ((0.4,), (100.0,), ("a",))


def _probe(name: str, score: float, em: float) -> dict:
    scenes = [{"scene_id": f"s{i}", "score": score + i / 100} for i in range(8)]
    return {
        "schema": 1,
        "subject": {"name": name},
        "layers": {"last": {"score": {"mean": score, "low": None, "high": None}, "scenes": scenes}},
        "metrics": {"sqa3d": em},
    }


def test_the_scatter_over_models_correlates_score_and_metric(tmp_path):
    paths = []
    for number, (score, em) in enumerate([(0.2, 30.0), (0.4, 40.0), (0.6, 50.0)]):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(_probe(f"m{number}", score, em)))
    result = _probe("here", 0.8, 60.0)
    add_models(result, paths)
    assert [m["name"] for m in result["models"]] == ["here", "m0", "m1", "m2"]
    assert result["over_models"]["sqa3d"]["pearson"]["mean"] == pytest.approx(1.0)


def test_an_evaluation_of_other_scenes_is_refused(tmp_path):
    (tmp_path / "records.jsonl").write_text(
        json.dumps({"task": "sqa3d", "scene_id": "elsewhere", "scores": {"em": 1.0}}) + "\n"
    )
    (tmp_path / "summary.json").write_text(json.dumps({"tasks": {}}))
    with pytest.raises(StereopsisError, match="none of the probed scenes"):
        add_downstream(_probe("here", 0.5, 0.0), tmp_path)
