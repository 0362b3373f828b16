import math

import pytest
import torch

from stereopsis.objectives import CosineDiffusion


def closed_form(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Betas and cumulative products of Nichol & Dhariwal's cosine schedule, in float64."""
    f = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
    betas = torch.tensor([min(1 - f[i + 1] / f[i], 0.999) for i in range(steps)], dtype=torch.float64)
    return betas, (1 - betas).cumprod(0)


@pytest.mark.parametrize("steps", [1000, 100])
def test_schedule_equals_the_closed_form(steps):
    diffusion = CosineDiffusion(steps)
    betas, alphas = closed_form(steps)
    assert (diffusion.betas.double() - betas).abs().max() < 1e-6
    assert (diffusion.alphas_cumprod.double() - alphas).abs().max() < 1e-6


def test_add_noise_equals_the_closed_form_per_target():
    _, alphas = closed_form(1000)
    t = torch.tensor([0, 250, 999])
    x0, noise = torch.randn(3, 4, 2, dtype=torch.float64), torch.randn(3, 4, 2, dtype=torch.float64)
    got = CosineDiffusion().add_noise(x0, noise, t)
    for i in range(3):
        expected = math.sqrt(alphas[t[i]]) * x0[i] + math.sqrt(1 - alphas[t[i]]) * noise[i]
        torch.testing.assert_close(got[i], expected, atol=1e-6, rtol=0)


def test_noise_keeps_unit_variance_of_unit_latents():
    torch.manual_seed(0)
    x = CosineDiffusion().add_noise(torch.randn(4000, 8), torch.randn(4000, 8), torch.randint(1000, (4000,)))
    assert x.var().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("steps", [1, 7, 50, 1000])
def test_ddim_with_the_exact_denoiser_recovers_the_clean_target(steps):
    diffusion = CosineDiffusion()
    x0 = 3 * torch.randn(2, 5, 3, dtype=torch.float64)

    def exact(noisy, t):
        alpha = diffusion.alphas_cumprod.double()[t][:, None, None]
        return (noisy - alpha.sqrt() * x0) / (1 - alpha).sqrt()

    got = diffusion.sample(exact, (2, 5, 3), steps=steps, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(got.double(), x0, atol=1e-4, rtol=0)


def test_ddim_with_a_gaussian_s_optimal_denoiser_samples_that_gaussian():
    diffusion, mean, std = CosineDiffusion(), 1.5, 0.4

    def optimal(noisy, t):
        alpha = diffusion.alphas_cumprod[t][:, None]
        return (1 - alpha).sqrt() * (noisy - alpha.sqrt() * mean) / (alpha * std**2 + 1 - alpha)

    x = diffusion.sample(optimal, (4000, 2), steps=200, generator=torch.Generator().manual_seed(0))
    assert x.mean().item() == pytest.approx(mean, abs=0.03)
    assert x.std().item() == pytest.approx(std, rel=0.05)


def test_draws_are_uniform_and_come_only_from_the_generator():
    diffusion = CosineDiffusion()
    t, noise = diffusion.draw(20000, 1, 2, torch.Generator().manual_seed(0))
    assert (t.min(), t.max()) == (0, 999)
    assert torch.bincount(t // 250).float().div(20000).sub(0.25).abs().max() < 0.01
    assert noise.shape == (20000, 1, 2)
    torch.manual_seed(123)
    again = diffusion.draw(20000, 1, 2, torch.Generator().manual_seed(0))
    assert again[0].equal(t)
    assert again[1].equal(noise)


def test_out_of_range_steps_are_refused():
    with pytest.raises(ValueError, match="at least one training step"):
        CosineDiffusion(0)
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=r"1\.\.1000"):
            CosineDiffusion().sample(lambda x, t: x, (1, 1, 1), steps=steps, generator=torch.Generator().manual_seed(0))
