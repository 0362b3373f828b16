"""What is imagined and what is guessed: which cells, against which targets, by which figures."""

import dataclasses

import numpy as np
import pytest
import torch

from stereopsis.errors import StereopsisError
from stereopsis.models.storage import load_model
from stereopsis.reconstruction.metrics import EQUAL_PSNR, averages, estimates, figures_of, likeness, psnr, ssim
from stereopsis.reconstruction.sampling import (
    MEAN_IMAGE,
    MEAN_OF_VISIBLE,
    NEAREST,
    ONE_CELL,
    camera_distance,
    imagine,
    mean_cells,
)
from stereopsis.teachers.latent_tokenizers import PixelTokenizer


@pytest.fixture(scope="module")
def imagined(trained, finished_run):
    return imagine(
        trained, finished_run.packs[0], samples=3, steps=2, by_steps=(1, 2), means=mean_cells(finished_run.packs)
    )


def test_a_hidden_view_is_told_apart_from_those_that_were_seen(imagined, finished_run):
    pack = finished_run.packs[0]
    masked, above = imagined
    assert (masked.kind, above.kind) == ("masked_view", "birds_eye")
    hidden = pack.frame_names.index(masked.view)
    assert sorted((*masked.visible, hidden)) == [0, 1, 2, 3]
    assert above.visible == (0, 1, 2, 3)
    latents = pack.view_targets["view_latents"].float()
    assert torch.equal(masked.truth, latents[hidden])
    torch.testing.assert_close(masked.guesses[MEAN_OF_VISIBLE], latents[list(masked.visible)].mean(0))
    distances = {v: camera_distance(pack.cameras[v], pack.cameras[hidden]) for v in masked.visible}
    assert torch.equal(masked.guesses[NEAREST], latents[min(distances, key=distances.__getitem__)])


def test_the_ladder_s_first_draw_starts_from_the_first_sample_s_noise(imagined):
    for target in imagined:
        torch.testing.assert_close(target.by_steps[2], target.samples[0])
        assert not torch.allclose(target.by_steps[1], target.samples[0])


def test_another_model_is_asked_the_same(imagined, trained, finished_run):
    again = imagine(trained, finished_run.packs[0], samples=1, steps=2)
    other = imagine(trained, finished_run.packs[0], samples=1, steps=2, seed=5)
    assert [target.view for target in again] == [target.view for target in imagined]
    torch.testing.assert_close(again[0].samples[0], imagined[0].samples[0])
    assert not torch.allclose(other[1].samples[0], imagined[1].samples[0])


def test_one_cell_is_the_best_constant(imagined):
    above = imagined[1]
    constant = above.guesses[ONE_CELL]
    error = (constant - above.truth)[above.counted].square().mean()
    shifted = (constant + 0.01 - above.truth)[above.counted].square().mean()
    assert error < shifted
    assert (constant == constant[0, 0]).all()


def test_mean_image_by_hand(finished_run):
    packs = finished_run.packs[:2]
    first, second = (p.scene_targets for p in packs)
    means = mean_cells(packs)
    torch.testing.assert_close(means.view, torch.cat([p.view_targets["view_latents"].float() for p in packs]).mean(0))
    both = first["birdseye_valid"] & second["birdseye_valid"]
    only = first["birdseye_valid"] & ~second["birdseye_valid"]
    a, b = first["birdseye_latents"].float(), second["birdseye_latents"].float()
    torch.testing.assert_close(means.birdseye[both], ((a + b) / 2)[both])
    torch.testing.assert_close(means.birdseye[only], a[only])


def test_without_packs_there_is_no_mean_image():
    with pytest.raises(StereopsisError, match="latent teacher"):
        mean_cells([])


def test_a_model_for_inference_imagines_nothing(finished_run):
    with pytest.raises(StereopsisError, match="no heads that imagine"):
        imagine(load_model(finished_run.folder / "model"), finished_run.packs[0])


def test_the_mean_of_draws_removes_their_spread(imagined):
    """Draws around the truth: a draw misses by the spread, the mean of n by the n-th part of it."""
    base = imagined[0]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, *base.truth.shape, generator=generator)
    target = dataclasses.replace(base, samples=base.truth + 0.5 * noise)
    assert target.spread == pytest.approx(0.25, rel=0.1)
    figures = figures_of(target, PixelTokenizer())
    assert figures["sample"]["latent_mse"] == pytest.approx(0.25, rel=0.1)
    assert figures["mean of 8"]["latent_mse"] == pytest.approx(0.25 / 8, rel=0.15)
    assert list(estimates(target, "x: ")) == ["x: sample", "x: mean of 8"]
    assert dataclasses.replace(base, samples=base.samples[:1]).spread is None


def test_figures_of_guesses_and_controls(imagined):
    figures = figures_of(imagined[0], PixelTokenizer(), {"blind": imagined[0]})
    assert figures["blind: sample"] == figures["sample"]
    assert {MEAN_IMAGE, MEAN_OF_VISIBLE, NEAREST, "blind: mean of 3"} <= figures.keys()


def test_likeness_counts_only_what_was_seen():
    truth = torch.zeros(2, 2, 12)
    counted = torch.tensor([[True, True], [False, False]])
    wrong = truth.clone()
    wrong[1] = 1.0
    tokenizer = PixelTokenizer()
    truth, wrong = (cells.repeat(1, 1, tokenizer.channels // 12) for cells in (truth, wrong))
    perfect = likeness(wrong[None], truth, counted, tokenizer)
    assert (perfect.latent_mse, perfect.psnr) == (0.0, EQUAL_PSNR)
    assert likeness(wrong[None], truth, ~counted, tokenizer).latent_mse == 1.0
    nothing = likeness(wrong[None], truth, torch.zeros_like(counted), tokenizer)
    assert (nothing.latent_mse, nothing.psnr, nothing.ssim) == (None, None, None)


def test_psnr_and_ssim_by_hand():
    flat = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    brighter = torch.full((3, 16, 16), 110, dtype=torch.uint8)
    everywhere = torch.ones(16, 16, dtype=torch.bool)
    assert psnr(brighter, flat, everywhere) == pytest.approx(20 * np.log10(255 / 10))
    # Without structure only the comparison of means is left: (2ab + c) / (a^2 + b^2 + c), c = (0.01 * 255)^2.
    c = (0.01 * 255) ** 2
    assert ssim(brighter, flat, everywhere) == pytest.approx((2 * 100 * 110 + c) / (100**2 + 110**2 + c), rel=1e-5)
    assert ssim(flat, flat, everywhere) == pytest.approx(1.0)


def test_averages_leave_out_what_was_seen_nowhere():
    some = {"latent_mse": 1.0, "psnr": 10.0, "ssim": 0.5}
    other = {"latent_mse": 3.0, "psnr": 20.0, "ssim": 0.7}
    nothing = dict.fromkeys(some)
    records = [{"kind": "birds_eye", "figures": {"sample": each}} for each in (some, other, nothing)]
    row = averages(records)["birds_eye"]["sample"]
    assert row == pytest.approx({"latent_mse": 2.0, "psnr": 15.0, "ssim": 0.6, "targets": 2})
