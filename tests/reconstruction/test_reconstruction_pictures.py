"""Sampled reconstructions: which pictures are written, what they show, and how their distance is measured."""

import numpy as np
import pytest
import torch
from PIL import Image

from stereopsis.reconstruction.metrics import EQUAL_PSNR
from stereopsis.reconstruction.pictures import write_pictures
from stereopsis.teachers.latent_tokenizers import PixelTokenizer


def picture(folder, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / name)).astype(np.int64)


def draw(model, packs, folder, **options):
    return write_pictures(model, packs, PixelTokenizer(), folder, **{"steps": 2, **options})


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def drawn(trained, finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return folder, draw(trained, finished_run.packs[:2], folder)


def test_everything_that_is_named_is_there_and_nothing_else(drawn, strict_json):
    folder, records = drawn
    assert strict_json((folder / "pictures.json").read_text()) == records
    named = {r[key] for r in records for key in ("target", "reconstruction", "baseline") if r.get(key)}
    named |= {name for r in records for name in r["context"]}
    assert named | {"pictures.json"} == {path.name for path in folder.iterdir()}
    # one of four views is hidden, and every scene has one view from above
    assert [(r["kind"], r["scene_id"]) for r in records] == [
        (kind, f"room-{number:08d}") for number in range(2) for kind in ("masked_view", "birds_eye")
    ]
    for record in records:
        assert len(record["context"]) == (3 if record["kind"] == "masked_view" else 0)


def test_targets_show_the_hidden_view_and_ratios_are_measured_against_them(drawn, finished_run):
    folder, records = drawn
    masked = records[0]
    pack = finished_run.packs[0]
    view = pack.frame_names.index(masked["view"])
    assert f"{pack.scene_id}-{masked['view']}-seen.png" not in masked["context"]
    target = picture(folder, masked["target"])
    assert target.shape == (32, 32, 3)
    small = torch.nn.functional.interpolate(
        pack.images[view : view + 1].float(), size=32, mode="bilinear", antialias=True
    )[0].permute(1, 2, 0)
    assert np.abs(target - small.numpy()).max() <= 1  # the pixel teacher's own round trip, through half precision
    for key, name in (("psnr", "reconstruction"), ("baseline_psnr", "baseline")):
        error = ((picture(folder, masked[name]) - target) ** 2).mean()
        assert masked[key] == pytest.approx(10 * np.log10(255**2 / error), abs=0.006)


def test_the_view_from_above_is_measured_only_where_something_was_seen(drawn, finished_run):
    folder, records = drawn
    above, pack = records[1], finished_run.packs[0]
    assert above["view"] is None
    seen = np.kron(pack.scene_targets["birdseye_valid"].numpy(), np.ones((16, 16))).astype(bool)
    assert seen.any()
    target, made = (picture(folder, above[key]) for key in ("target", "reconstruction"))
    assert (target[~seen] == 128).all()
    assert (made[~seen] == 128).all()
    error = ((target[seen] - made[seen]) ** 2).mean()
    assert above["psnr"] == pytest.approx(10 * np.log10(255**2 / error), abs=0.006)
    mean = target[seen].mean(axis=0).round()
    error = ((target[seen] - mean) ** 2).mean()
    assert above["baseline_psnr"] == pytest.approx(10 * np.log10(255**2 / error), abs=0.006)


def test_the_same_seed_draws_the_same_and_another_seed_does_not(drawn, trained, finished_run, tmp_path):
    folder, _ = drawn
    draw(trained, finished_run.packs[:2], tmp_path / "again")
    assert files(tmp_path / "again") == files(folder)
    draw(trained, finished_run.packs[:2], tmp_path / "other", seed=9)
    assert files(tmp_path / "other") != files(folder)


def test_equal_pictures_have_a_finite_ratio_in_valid_json(trained, finished_run, tmp_path, strict_json):
    """All views alike: the nearest visible view and the mean colour both equal the hidden view."""
    pack = finished_run.packs[0]
    latents = torch.zeros_like(pack.view_targets["view_latents"])
    above = torch.zeros_like(pack.scene_targets["birdseye_latents"])
    same = pack.replace(
        view_targets={**pack.view_targets, "view_latents": latents},
        scene_targets={**pack.scene_targets, "birdseye_latents": above},
    )
    draw(trained, [same], tmp_path)
    masked, birdseye = strict_json((tmp_path / "pictures.json").read_text())
    assert masked["baseline_psnr"] == masked["mean_colour_psnr"] == birdseye["baseline_psnr"] == EQUAL_PSNR
    assert 0 < masked["psnr"] < EQUAL_PSNR


def test_a_scene_seen_nowhere_from_above_has_no_ratio(trained, finished_run, tmp_path, strict_json):
    pack = finished_run.packs[0]
    nothing = torch.zeros_like(pack.scene_targets["birdseye_valid"])
    draw(trained, [pack.replace(scene_targets={**pack.scene_targets, "birdseye_valid": nothing})], tmp_path)
    birdseye = strict_json((tmp_path / "pictures.json").read_text())[1]
    assert (birdseye["psnr"], birdseye["baseline_psnr"]) == (None, None)
    assert (picture(tmp_path, birdseye["target"]) == 128).all()


def test_a_model_for_inference_draws_nothing(finished_run, tmp_path):
    from stereopsis.models.storage import load_model

    model = load_model(finished_run.folder / "model")
    assert draw(model, finished_run.packs[:1], tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
