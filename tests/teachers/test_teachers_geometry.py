import argparse
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from stereopsis.errors import CheckpointError
from stereopsis.packs.targets import teacher_views
from stereopsis.teachers.feature_teachers import load_feature_teacher
from stereopsis.teachers.features import TeacherViews
from stereopsis.teachers.geometry_cameras import matched_cameras, rigid
from stereopsis.teachers.geometry_network import Geometry, GeometryConfig, GeometryNetwork, ViewTokens, rotation_of
from stereopsis.teachers.geometry_teacher import (
    CONFIG,
    WEIGHTS,
    GeometryTeacher,
    load_geometry_network,
    rooms_geometry_folder,
)

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SMALL = GeometryConfig(image_size=32, width=32, pairs=1, heads=2, stem=(8, 16))
UNSEEN = 25_000_000  # a test room that the card does not use


TRIVIAL = {  # an error, and that of answering "two metres" everywhere and "nothing moved"
    "depth_absrel": "depth_trivial_absrel",
    "matched_rotation_degrees": "pose_trivial_rotation_degrees",
    "points_matched_aligned_metres": "points_trivial_aligned_metres",
}


def script(name):
    sys.path.insert(0, str(SCRIPTS))  # scripts find each other when run
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(SCRIPTS))
    return module


@pytest.fixture(scope="module")
def training():
    return script("train_geometry_teacher")


@pytest.fixture(scope="module")
def measuring():
    return script("measure_geometry_teacher")


@pytest.fixture(scope="module")
def shipped():
    return GeometryTeacher.from_pretrained()


def network(**changes):
    torch.manual_seed(0)
    return GeometryNetwork(GeometryConfig(**{**vars(SMALL), **changes}))


def pictures(*shape, seed=0):
    return torch.rand(*shape, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def views_of(images, rows=6, cols=6):
    count, _, height, width = images.shape
    return TeacherViews(
        images=images,
        points=torch.zeros(count, height, width, 3),
        points_valid=torch.zeros(count, height, width, dtype=torch.bool),
        T_aligned_camera=torch.eye(4).repeat(count, 1, 1),
        rows=rows,
        cols=cols,
        names=tuple(str(i) for i in range(count)),
        scene_id="scene",
    )


def noise_views(count, size, seed=0, **cells):
    generator = torch.Generator().manual_seed(seed)
    return views_of(torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator), **cells)


@pytest.mark.parametrize(("scenes", "views"), [(1, 1), (2, 3)])
def test_every_output_has_its_shape(scenes, views):
    found = network(pairs=2)(pictures(scenes, views))
    assert found.log_depth.shape == (scenes, views, 32, 32)
    assert found.points.shape == (scenes, views, 32, 32, 3)
    assert found.rotation.shape == (scenes, views, 3, 3)
    assert found.translation.shape == (scenes, views, 3)
    assert found.log_focal.shape == (scenes, views)
    assert found.tokens.patches.shape == (scenes, views, 4, 4, 64)
    assert found.tokens.cameras.shape == (scenes, views, 64)


def test_every_parameter_learns():
    made = network(pairs=2)
    found = made(pictures(2, 3))
    sum(t.square().mean() for t in (found.log_depth, found.points, found.translation, found.log_focal)).backward()
    # the last pair's per-view output passes straight to the tokens, so nothing is idle
    idle = [name for name, p in made.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert not idle


def test_views_meet_in_global_attention_only():
    """With one pair, the first half of the tokens is per-view attention's output: another view cannot touch it."""
    made, before = network(), pictures(1, 3)
    after = before.clone()
    after[:, 2] = pictures(1, 1, seed=1)[:, 0]
    with torch.no_grad():
        a, b = made.tokens(before).patches, made.tokens(after).patches
    assert torch.allclose(a[:, :2, ..., :32], b[:, :2, ..., :32], atol=1e-5)
    assert (a[:, :2, ..., 32:] - b[:, :2, ..., 32:]).abs().amax(dim=(2, 3, 4)).min() > 1e-3
    assert (a[:, 2, ..., :32] - b[:, 2, ..., :32]).abs().max() > 1e-2


def test_scenes_of_a_batch_do_not_meet():
    made, images = network(pairs=2), pictures(2, 3)
    with torch.no_grad():
        together, alone = made(images), made(images[1:])
    assert torch.allclose(together.points[1:], alone.points, atol=1e-4)
    assert torch.allclose(together.rotation[1:], alone.rotation, atol=1e-4)


def test_order_of_the_other_views_does_not_matter_but_the_first_does():
    made, images = network(pairs=2), pictures(1, 4)
    with torch.no_grad():
        plain = made(images)
        for order, same in (([0, 3, 1, 2], True), ([1, 0, 2, 3], False)):
            moved = made(images[:, order])
            for name in ("log_depth", "points", "rotation", "translation", "log_focal"):
                assert torch.allclose(getattr(moved, name), getattr(plain, name)[:, order], atol=1e-4) == same
            assert torch.allclose(moved.tokens.patches, plain.tokens.patches[:, order], atol=1e-4) == same


def test_attention_for_training_equals_the_fused_one():
    made, images = network(pairs=2), pictures(1, 3)
    learning = made(images)
    with torch.no_grad():
        fused = made(images)
    assert torch.allclose(learning.points.detach(), fused.points, atol=1e-5)
    assert torch.allclose(learning.tokens.patches.detach(), fused.tokens.patches, atol=1e-5)


def test_rotations_are_rotations():
    assert torch.equal(rotation_of(torch.tensor([2.0, 0, 0, 5, 3, 0])), torch.eye(3))
    quarter = rotation_of(torch.tensor([0.0, 1, 0, -1, 0, 0]))  # x -> y, y -> -x
    assert torch.allclose(quarter, torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]))
    many = rotation_of(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(many @ many.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(many), torch.ones(50), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"patch_size": 16}, "halves the image three times"),
        ({"image_size": 100}, "multiple of 8"),
        ({"heads": 5}, "5 heads"),
    ],
)
def test_impossible_sizes_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        GeometryConfig(**{**vars(SMALL), **changes})


def test_views_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(24, 24\) pixels, but the network takes 32 x 32"):
        network()(torch.rand(1, 2, 3, 24, 24))


# -- the teacher


def test_shipped_folder_is_small_and_complete(shipped):
    folder = rooms_geometry_folder()
    assert {p.name for p in folder.iterdir()} == {"README.md", "card.json", CONFIG, WEIGHTS}
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 8e6
    assert {str(t.dtype) for t in load_file(folder / WEIGHTS).values()} == {"torch.float16"}
    assert load_feature_teacher("rooms_geometry").fingerprint == shipped.fingerprint


def test_card_holds_what_was_measured():
    """Pose, depth and point-map errors on unseen rooms; the kitchen's where it was at hand."""
    card = json.loads((rooms_geometry_folder() / "card.json").read_text())
    rooms = card["measured"]["rooms"]
    assert rooms["scenes"] >= 20
    for part in ("rooms", "kitchen"):
        errors = card["measured"][part]["geometry"]
        assert {"points_metres", "pose_rotation_degrees", "pose_translation_metres"} <= set(errors)
        for key, trivial in TRIVIAL.items():
            assert 0 < errors[key] < errors[trivial]
    for part in ("rooms", "kitchen"):
        found = dict(card["measured"][part]["correspondence"])
        own = found.pop("rooms_geometry")
        for base in found.values():
            assert all(own[key] > base[key] for key in ("gap", "separation", "recall"))
    assert card["training"]["environment"]["date"]


def test_features_are_means_of_tokens_over_cells(shipped):
    views = noise_views(2, 96)
    fine = shipped.encode(noise_views(2, 96, rows=12, cols=12)).features
    coarse = shipped.encode(views)
    assert coarse.features.shape == (2, 6, 6, shipped.channels)
    assert coarse.valid.all()
    assert torch.allclose(coarse.features, fine.reshape(2, 6, 2, 6, 2, -1).mean(dim=(2, 4)), atol=1e-5)
    assert shipped.encode(noise_views(3, 140, rows=7, cols=5)).features.shape == (3, 7, 5, shipped.channels)


def test_no_gradient_reaches_the_teacher(shipped):
    with torch.enable_grad():
        features = shipped.encode(noise_views(2, 96)).features
    assert not features.requires_grad
    assert not any(p.requires_grad for p in shipped.network.parameters())
    assert not shipped.network.training


def test_fingerprint_follows_the_weights():
    teachers = [GeometryTeacher(network()) for _ in range(3)]
    with torch.no_grad():
        teachers[2].network.position[0, 0] += 1e-3
    assert teachers[0].fingerprint == teachers[1].fingerprint != teachers[2].fingerprint
    assert GeometryTeacher(network(mlp_ratio=2)).fingerprint != teachers[0].fingerprint


def test_files_that_do_not_fit_are_refused(tmp_path):
    folder = shutil.copytree(rooms_geometry_folder(), tmp_path / "copy")
    tensors = load_file(folder / WEIGHTS)
    save_file({k: v for k, v in tensors.items() if k != "position"}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="position"):
        load_geometry_network(folder)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "wings": 2}))
    with pytest.raises(CheckpointError, match="wings"):
        load_geometry_network(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=f"holds no {WEIGHTS}"):
        load_geometry_network(folder)


# -- what it has learnt, on rooms that neither training nor the card has seen


@pytest.fixture(scope="module")
def unseen():
    pytest.importorskip("embreex")
    from stereopsis.scenes.rooms import make_room

    return [make_room(UNSEEN + number) for number in range(3)]


@pytest.fixture(scope="module")
def figures(shipped, unseen, measuring):
    return [measuring.geometry_figures(shipped.network, measuring.all_views(room, 96)) for room in unseen]


@pytest.mark.parametrize(("own", "factor"), zip(TRIVIAL, (0.7, 0.6, 0.85), strict=True))
def test_depth_and_matched_cameras_beat_the_trivial_answers(own, factor, figures):
    assert sum(f[own] for f in figures) < factor * sum(f[TRIVIAL[own]] for f in figures)


def test_features_tell_spots_better_than_the_base_models(shipped, unseen, measuring):
    sources = measuring.feature_sources(shipped)
    found = {}
    for name, features in sources.items():
        rows = [measuring.correspondence(*features(room)) for room in unseen]
        found[name] = measuring.averaged(rows)
    own = found.pop("rooms_geometry")
    assert len(found) == 3
    for base in found.values():
        assert own["gap"] > base["gap"] + 0.1
        assert own["separation"] > base["separation"]


def test_scenes_have_features_of_their_own(shipped, unseen, measuring):
    views = [
        teacher_views(measuring.all_views(room, 96), room.id, measuring.GRID, measuring.GRID) for room in unseen[:2]
    ]
    a, b = (shipped.encode(seen).features.flatten(0, 2) for seen in views)
    assert functional.cosine_similarity(a, b, dim=-1).mean() < 0.5


# -- how it is measured and trained


def test_correspondence_equals_the_sum_over_pairs(measuring):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, 4, 5, generator=generator)
    places = torch.rand(3, 4, 4, 3, generator=generator) * 0.3
    valid = torch.rand(3, 4, 4, generator=generator) < 0.8
    unit = functional.normalize(features.double(), dim=-1)
    tokens = [tuple(index) for index in valid.nonzero().tolist()]
    voxel = {t: tuple((places[t].double() / 0.1).floor().tolist()) for t in tokens}
    cosines: dict[tuple, list[float]] = {}
    random, hits, partners = [], [], []
    for a in tokens:
        others = [b for b in tokens if b[0] != a[0]]
        similar = {b: float(unit[a] @ unit[b]) for b in others}
        random += similar.values()
        mates = [b for b in others if voxel[b] == voxel[a]]
        cosines.setdefault(voxel[a], []).extend(similar[b] for b in mates)
        if mates:
            hits.append(voxel[max(similar, key=similar.get)] == voxel[a])
            partners.append(len(mates) / len(others))
    means = [sum(c) / len(c) for c in cosines.values() if c]
    found = measuring.correspondence(features, places, valid)
    assert found["score"] == pytest.approx(sum(means) / len(means), abs=1e-9)
    assert found["random"] == pytest.approx(sum(random) / len(random), abs=1e-9)
    assert found["recall"] == pytest.approx(sum(hits) / len(hits))
    assert found["chance"] == pytest.approx(sum(partners) / len(partners))


def true_geometry(truth, generator):
    """What a perfect network would say: true depth and focal length, features that tell places apart."""
    places = functional.avg_pool2d(truth.points.permute(0, 3, 1, 2).float(), 8).permute(0, 2, 3, 1)
    waves = places @ torch.randn(3, 200, generator=generator) * 3
    views = len(places)
    return Geometry(
        log_depth=truth.depth.float().log()[None],
        points=truth.points.float()[None],
        rotation=torch.eye(3).expand(1, views, 3, 3),
        translation=torch.full((1, views, 3), 9.0),
        log_focal=torch.full((1, views), truth.focal).log(),
        tokens=ViewTokens(
            patches=torch.cat([waves.sin(), waves.cos()], dim=-1)[None], cameras=torch.zeros(1, views, 400)
        ),
    )


def test_cameras_follow_from_true_depth_and_places(unseen, measuring):
    """Up to the tokens' coarseness (7 degrees apart), chained over eight views that look all around."""
    for room in unseen[:2]:
        truth = measuring.truth_of(measuring.all_views(room, 96))
        geometry = true_geometry(truth, torch.Generator().manual_seed(0))
        found = matched_cameras(geometry)
        assert found.matched.all()
        figures = measuring.pose_figures(found.rotation, found.translation, truth, "m")
        assert figures["m_rotation_degrees"] < 6
        assert figures["m_translation_metres"] < 0.25
        assert torch.equal(found.rotation, matched_cameras(geometry).rotation)


def test_views_without_matches_keep_the_camera_heads_pose(unseen, measuring):
    truth = measuring.truth_of(measuring.all_views(unseen[0], 96))
    geometry = true_geometry(truth, torch.Generator().manual_seed(0))
    geometry.tokens.patches[0, 3] = torch.randn(geometry.tokens.patches[0, 3].shape)
    found = matched_cameras(geometry)
    assert found.matched.tolist() == [view != 3 for view in range(8)]
    assert torch.equal(found.translation[3], torch.full((3,), 9.0))


def test_rigid_motions_are_recovered():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(20, 7, 3, generator=generator)
    R = rotation_of(torch.randn(20, 6, generator=generator))
    move = torch.randn(20, 3, generator=generator)
    target = torch.einsum("kij,knj->kni", R, source) + move[:, None]
    turned, moved = rigid(source, target)
    assert torch.allclose(turned, R, atol=1e-4)
    assert torch.allclose(moved, move, atol=1e-4)
    source[:, 0] += 5  # an outlier without weight
    assert torch.allclose(rigid(source, target, torch.ones(20, 7).index_fill(1, torch.tensor([0]), 0))[0], R, atol=1e-4)
    flat, _ = rigid(source * torch.tensor([1.0, 1, 0]), source * torch.tensor([1.0, 1, 0]))
    assert torch.allclose(torch.linalg.det(flat), torch.ones(20), atol=1e-4)  # never a reflection


def test_similarity_is_recovered(measuring):
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    R = rotation_of(torch.randn(6, generator=generator)).double()
    move = torch.tensor([1.0, -2, 3], dtype=torch.float64)
    scale, turned, moved = measuring.similarity(source, 2.5 * source @ R.T + move)
    assert scale == pytest.approx(2.5)
    assert torch.allclose(turned, R, atol=1e-6)
    assert torch.allclose(moved, move, atol=1e-6)


def test_the_truth_scores_without_error(unseen, measuring):
    views = measuring.all_views(unseen[0], 96)
    truth = measuring.truth_of(views)
    rebuilt = measuring.unprojected(truth.depth, truth.focal, truth.poses)
    assert measuring.point_figures(rebuilt, truth, "p")["p_metres"] < 1e-4
    assert measuring.depth_figures(truth.depth, truth, "d")["d_absrel"] < 1e-9
    pose = measuring.pose_figures(truth.poses[:, :3, :3], truth.poses[:, :3, 3], truth, "c")
    assert pose["c_rotation_degrees"] < 0.1
    assert pose["c_translation_metres"] < 1e-9


@pytest.fixture(scope="module")
def rendered(training):
    pytest.importorskip("embreex")
    return training.render_rooms(argparse.Namespace(cache=None, rooms=2))


def test_training_views_agree_about_the_room(training, rendered):
    """Points in the first view's sight lie on or behind what it sees, whether mirrored or not, whatever lens."""
    generator, inside, on, before = torch.Generator().manual_seed(0), 0, 0, 0
    for _ in range(6):
        truth = training.sample(rendered, argparse.Namespace(views_per_step=4), generator)
        size = truth.depth.shape[-1]
        for scene in range(len(truth.images)):
            x, y, z = truth.points[scene, 1:].flatten(0, 2).unbind(dim=-1)
            col, row = (((c / z * truth.focal[scene, 0] + 0.5) * size).floor().long() for c in (x, y))
            seen = (z > 0) & (col >= 0) & (col < size) & (row >= 0) & (row < size)
            ratio = z[seen] / truth.depth[scene, 0][row[seen], col[seen]]
            inside, on = inside + len(ratio), on + int(((ratio - 1).abs() < 0.05).sum())
            before += int((ratio < 0.9).sum())
    assert inside > 20_000
    assert on > 0.9 * inside  # 0.66 if poses were not mirrored with the images
    assert before < 0.02 * inside  # and 0.15


def test_contrast_wants_the_same_spot_alike(training):
    """Two views of the same 36 spots: one-hot features of the spot are near perfect, shuffled ones are bad."""
    spots = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij"), dim=-1)
    points = torch.cat([spots, torch.zeros(6, 6, 1)], dim=-1).expand(1, 2, 6, 6, 3)
    points = points.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    tokens = torch.eye(36).reshape(1, 1, 6, 6, 36).repeat(1, 2, 1, 1, 1)
    tokens = tokens.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    good = training.contrast(tokens, points, 6, 0.1)
    # e^10 for the one partner against 35 spots (times two views) at e^0
    assert float(good) == pytest.approx(
        float(torch.log1p(torch.tensor(70.0) * torch.exp(torch.tensor(-10.0)))), abs=2e-3
    )
    wrong = torch.stack([tokens[:, 0], tokens[:, 1].roll(2, dims=1)], dim=1)
    assert training.contrast(wrong, points, 6, 0.1) > 5
    apart = points + torch.tensor([0.0, 5.0]).reshape(1, 2, 1, 1, 1) * 20
    assert training.contrast(tokens, apart, 6, 0.1) == 0
