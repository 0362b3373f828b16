from types import MappingProxyType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.teachers.latent_tokenizers import PixelTokenizer
from stereopsis.teachers.latents import (
    CellPosterior,
    CellScaling,
    LatentPosterior,
    LatentTokenizer,
    depth_to_space,
    even_sides,
    even_sides_std,
    psnr,
    space_to_depth,
    valid_cells,
)


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


class Noisy(LatentTokenizer):
    """Latents are 8x8 means of red and green; deviations follow blue, so that neighbours differ."""

    name, latent_channels, downsampling, module = "noisy", 2, 8, None

    def __init__(self, *, scaled: bool = False, spread: float | None = None) -> None:
        super().__init__(chunk=2)
        self._scaled_by = CellScaling(shift=torch.arange(8) / 10, scale=torch.arange(1.0, 9.0)) if scaled else None
        self._spread = spread

    @property
    def cell_scaling(self):
        return self._scaled_by

    @property
    def preprocessing(self):
        return MappingProxyType({})

    def _encode(self, pictures):
        pooled = torch.nn.functional.avg_pool2d(pictures, 8)
        std = (pooled[:, 2:] + 1.5).expand(-1, 2, -1, -1)
        return LatentPosterior(mean=pooled[:, :2], std=std if self._spread is None else torch.full_like(std, 0.7))

    def _decode(self, latents):
        return torch.nn.functional.interpolate(latents[:, [0, 1, 1]], scale_factor=8)


def test_space_to_depth_of_a_hand_example():
    # channel 0 counts 0..7 along a 2x4 grid, channel 1 the same plus 10
    latents = torch.tensor([[[[0.0, 1, 2, 3], [4, 5, 6, 7]], [[10, 11, 12, 13], [14, 15, 16, 17]]]])
    cells = space_to_depth(latents)
    assert cells.shape == (1, 1, 2, 8)
    assert cells[0, 0, 0].tolist() == [0, 1, 4, 5, 10, 11, 14, 15]
    assert cells[0, 0, 1].tolist() == [2, 3, 6, 7, 12, 13, 16, 17]


def test_space_to_depth_is_torch_pixel_unshuffle():
    latents = torch.randn(2, 16, 28, 30)
    expected = torch.nn.functional.pixel_unshuffle(latents, 2).permute(0, 2, 3, 1)
    assert torch.equal(space_to_depth(latents), expected)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 3), c=st.integers(1, 5), rows=st.integers(1, 5), cols=st.integers(1, 5))
def test_depth_to_space_inverts_space_to_depth(n, c, rows, cols):
    latents = torch.randn(n, c, 2 * rows, 2 * cols)
    assert torch.equal(depth_to_space(space_to_depth(latents)), latents)


def test_an_odd_side_becomes_the_next_even_one_bilinearly():
    latents = torch.arange(27.0).expand(1, 1, 2, 27)
    even = even_sides(latents)
    assert even.shape == (1, 1, 2, 28)
    # sample k of 28 lies at (k + 0.5) * 27 / 28 - 0.5, clamped to the first and last sample
    expected = ((np.arange(28) + 0.5) * 27 / 28 - 0.5).clip(0, 26)
    np.testing.assert_allclose(even[0, 0, 0], expected, atol=1e-5)
    assert even_sides(latents[..., :26]) is not None
    assert torch.equal(even_sides(latents[..., :26]), latents[..., :26])


def test_view_and_birdseye_grids_are_the_papers():
    tokenizer = PixelTokenizer()
    assert tokenizer.grid(216, 216) == (14, 14)
    assert tokenizer.grid(432, 432) == (27, 27)
    assert tokenizer.encode_cells(pictures(1, 3, 384, 384), size=216).shape[1:3] == (14, 14)
    assert tokenizer.encode_cells(pictures(1, 3, 432, 432)).shape[1:3] == (27, 27)


@settings(max_examples=10, deadline=None)
@given(rows=st.integers(1, 3), cols=st.integers(1, 3), patch=st.sampled_from([1, 4, 8]), n=st.integers(1, 5))
def test_pixel_round_trip_is_exact(rows, cols, patch, n):
    images = pictures(n, 3, 2 * patch * rows, 2 * patch * cols, seed=rows)
    tokenizer = PixelTokenizer(patch=patch, chunk=2)
    cells = tokenizer.encode_cells(images)
    assert cells.shape == (n, rows, cols, tokenizer.channels)
    assert torch.equal(tokenizer.decode_cells(cells), images)


def test_pixel_cells_hold_pixels_between_minus_one_and_one():
    images = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    images[0, 1] = 255
    cells = PixelTokenizer(patch=1).encode_cells(images)
    assert cells.flatten().tolist() == [-1.0] * 4 + [1.0] * 4 + [-1.0] * 4


def test_chunks_do_not_change_the_result():
    images = pictures(5, 3, 32, 32)
    whole, parts = PixelTokenizer(chunk=16), PixelTokenizer(chunk=2)
    assert torch.equal(whole.encode_cells(images, size=48), parts.encode_cells(images, size=48))


def test_no_pictures_give_no_cells_and_back():
    tokenizer = PixelTokenizer()
    cells = tokenizer.encode_cells(pictures(0, 3, 32, 48))
    assert cells.shape == (0, 2, 3, 768)
    assert tokenizer.decode_cells(cells).shape == (0, 3, 32, 48)


def test_resizing_is_antialiased():
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 200  # one pixel wide: shrinking must give their mean, not pick some of them
    # the triangle filter of a 4:1 reduction sees whole periods away from the border
    cells = PixelTokenizer(patch=1).encode_cells(stripes, size=16)
    middle = depth_to_space(cells)[..., 2:-2].add(1).mul(127.5)
    torch.testing.assert_close(middle, torch.full_like(middle, 100.0), atol=2.0, rtol=0)


def test_wrong_sizes_are_refused():
    tokenizer = PixelTokenizer()
    with pytest.raises(ValueError, match=r"multiples of 8 px, got 100x96.*pass size="):
        tokenizer.encode_cells(pictures(1, 3, 100, 96))
    with pytest.raises(ValueError, match="have 768 channels, got 64"):
        tokenizer.decode_cells(torch.zeros(1, 2, 2, 64))
    with pytest.raises(ValueError, match="at least 1 picture"):
        PixelTokenizer(chunk=0)


def test_posterior_sample_is_mean_plus_scaled_noise():
    mean, std = torch.randn(4, 8, 32, 32), torch.rand(4, 8, 32, 32) + 0.1
    posterior = LatentPosterior(mean=mean, std=std)
    noise = (posterior.sample(torch.Generator().manual_seed(3)) - mean) / std
    assert abs(noise.mean().item()) < 0.02
    assert abs(noise.std().item() - 1) < 0.02
    again = posterior.sample(torch.Generator().manual_seed(3))
    assert torch.equal(again, posterior.sample(torch.Generator().manual_seed(3)))
    assert not torch.equal(again, posterior.sample(torch.Generator().manual_seed(4)))


def even_weights(side: int) -> np.ndarray:
    """Bilinear weights of one side made even, by the sampling positions."""
    target = side + side % 2
    weights = np.zeros((target, side))
    for k, x in enumerate(((np.arange(target) + 0.5) * side / target - 0.5).clip(0, side - 1)):
        low = min(int(x), side - 2)
        weights[k, low : low + 2] = 1 - (x - low), x - low
    return weights


@pytest.mark.parametrize("size", [(27, 27), (4, 7), (5, 6)])
def test_deviations_of_resized_latents_are_those_of_the_weighted_sums(size):
    std = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)) + 0.1
    rows, cols = (even_weights(side) ** 2 for side in size)
    expected = np.sqrt(np.einsum("yh,nchw,xw->ncyx", rows, std.double().numpy() ** 2, cols))
    np.testing.assert_allclose(even_sides_std(std), expected, rtol=1e-5)


def test_deviations_of_27_latents_made_28_by_hand():
    made = even_sides_std(torch.ones(1, 1, 2, 27))[0, 0, 0]
    # sample 13 lies at 13.5 * 27 / 28 - 0.5 = 12.518: weights 0.482 and 0.518; the border copies its neighbour
    assert made[[0, 13, 27]].tolist() == pytest.approx([1.0, (0.48214**2 + 0.51786**2) ** 0.5, 1.0], abs=1e-4)


def test_even_sides_keep_deviations():
    std = torch.rand(1, 2, 4, 6)
    assert even_sides_std(std) is std


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("size", [None, 40, 56])
def test_posterior_cells_have_the_mean_of_the_cells(size, scaled):
    images, tokenizer = pictures(3, 3, 32, 48), Noisy(scaled=scaled)
    cells = tokenizer.encode_posterior_cells(images, size)
    assert torch.equal(cells.mean, tokenizer.encode_cells(images, size))
    assert cells.std is not None
    assert cells.std.shape == cells.mean.shape
    assert cells.latent_size == ((4, 6) if size is None else (size // 8, size // 8))


@pytest.mark.parametrize("scaled", [False, True])
def test_draws_from_even_posterior_cells_are_the_tokenizers_own(scaled):
    images, tokenizer = pictures(3, 3, 32, 48), Noisy(scaled=scaled)
    drawn = tokenizer.encode_cells(images, generator=torch.Generator().manual_seed(5))
    later = tokenizer.encode_posterior_cells(images).sample(torch.Generator().manual_seed(5))
    torch.testing.assert_close(later, drawn, atol=1e-5, rtol=1e-5)
    assert not torch.equal(later, tokenizer.encode_cells(images))


@pytest.mark.parametrize("scaled", [False, True])
def test_draws_from_odd_posterior_cells_are_the_tokenizers_own_where_the_spread_is_even(scaled):
    images, tokenizer = pictures(2, 3, 40, 56), Noisy(scaled=scaled, spread=0.7)
    drawn = tokenizer.encode_cells(images, generator=torch.Generator().manual_seed(5))
    later = tokenizer.encode_posterior_cells(images).sample(torch.Generator().manual_seed(5))
    torch.testing.assert_close(later, drawn, atol=1e-5, rtol=1e-5)


def test_draws_from_odd_posterior_cells_spread_like_the_tokenizers():
    images, tokenizer = pictures(1, 3, 24, 40), Noisy()
    cells = tokenizer.encode_posterior_cells(images)
    many = images.expand(4000, -1, -1, -1)
    tokenizer.chunk = 4000
    released = tokenizer.encode_cells(many, generator=torch.Generator().manual_seed(0))
    assert cells.std is not None
    whole = CellPosterior(
        mean=cells.mean.expand(4000, -1, -1, -1), std=cells.std.expand(4000, -1, -1, -1), latent_size=(3, 5)
    )
    ours = whole.sample(torch.Generator().manual_seed(1))
    # the deviation of 4000 draws is known to 1 / sqrt(8000) = 1.1 %; five of these
    torch.testing.assert_close(released.std(dim=0) / cells.std[0], torch.ones_like(cells.std[0]), atol=0.056, rtol=0)
    torch.testing.assert_close(ours.std(dim=0) / cells.std[0], torch.ones_like(cells.std[0]), atol=0.056, rtol=0)
    torch.testing.assert_close(ours.mean(dim=0), cells.mean[0], atol=5 * 2.5 / 4000**0.5, rtol=0)


def test_cells_without_a_spread_are_drawn_as_they_are():
    cells = PixelTokenizer().encode_posterior_cells(pictures(2, 3, 40, 48))
    assert cells.std is None
    assert cells.sample(torch.Generator()) is cells.mean


def test_a_cell_scaling_is_undone_for_pictures():
    images = pictures(2, 3, 32, 32)
    plain, scaled = Noisy(), Noisy(scaled=True)
    assert torch.equal(plain.decode_cells(plain.encode_cells(images)), scaled.decode_cells(scaled.encode_cells(images)))
    assert not torch.allclose(plain.encode_cells(images), scaled.encode_cells(images))


def test_a_latent_size_that_does_not_fold_into_the_cells_is_refused():
    with pytest.raises(ValueError, match=r"\(5, 7\) fold into \(3, 4\) cells, but there are \(3, 3\)"):
        CellPosterior(mean=torch.zeros(1, 3, 3, 8), latent_size=(5, 7))


def test_cells_count_where_less_than_half_is_void():
    void = torch.zeros(1, 4, 8, dtype=torch.bool)
    void[0, :, 0:4] = True  # cell 0: all void
    void[0, :2, 4:8] = True  # cell 1: exactly half
    assert valid_cells(void, 1, 2).tolist() == [[[False, False]]]
    void[0, 0, 4] = False  # one pixel less than half
    assert valid_cells(void, 1, 2).tolist() == [[[False, True]]]


def test_cell_validity_matches_a_loop():
    void = torch.rand(2, 432, 432, generator=torch.Generator().manual_seed(0)) < 0.5
    valid = valid_cells(void, 27, 27)
    for n, r, c in [(0, 0, 0), (1, 26, 26), (0, 13, 5), (1, 7, 20)]:
        cell = void[n, 16 * r : 16 * r + 16, 16 * c : 16 * c + 16]
        assert valid[n, r, c] == (cell.sum() < 128)
    assert 0.2 < valid.float().mean() < 0.8


def test_psnr_of_known_errors():
    a = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    b = a.clone()
    b[0] += 10  # mean squared error 100
    assert psnr(a, b)[0].item() == pytest.approx(10 * np.log10(255**2 / 100), abs=1e-4)
    assert psnr(a, b)[1].item() == float("inf")
