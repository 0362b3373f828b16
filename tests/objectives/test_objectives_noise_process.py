import math

import pytest
import torch

from stereopsis.objectives import CosineDiffusion, RectifiedFlow
from stereopsis.objectives.noise_process import guided, process_of


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


@pytest.mark.parametrize("t", [0, 1, 250, 998, 999])
def test_mixing_and_loss_equal_diffusers(t):
    """The schedule, q_sample and the squared error of a guess, against diffusers' own scheduler in float64."""
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    ours = CosineDiffusion()
    assert (ours.betas - theirs.betas).abs().max() < 1e-6
    assert (ours.alphas_cumprod - theirs.alphas_cumprod).abs().max() < 1e-6
    theirs.alphas_cumprod = (1 - theirs.betas.double()).cumprod(0)  # its float32 product loses 2e-6 at t = 0
    x0, noise, guess = torch.randn(3, 4, 9, 8, dtype=torch.float64).unbind(0)
    steps = torch.full((4,), t)
    mixed = ours.add_noise(x0, noise, steps)
    torch.testing.assert_close(mixed, theirs.add_noise(x0, noise, steps), atol=1e-6, rtol=0)
    assert ours.target(x0, noise).equal(noise)
    assert ((guess - ours.target(x0, noise)) ** 2 - (guess - noise) ** 2).abs().max() < 1e-6


# ---- rectified flow


def test_flow_hand_values():
    """Timestep 0 is clean, 1000 is noise, 250 a quarter of the way; the velocity leads from data to noise."""
    flow = RectifiedFlow()
    x0, noise = torch.tensor([[4.0], [4.0], [4.0]]), torch.tensor([[-2.0], [-2.0], [-2.0]])
    t = torch.tensor([0.0, 250.0, 1000.0])
    assert flow.add_noise(x0, noise, t).flatten().tolist() == [4.0, 2.5, -2.0]
    assert flow.target(x0, noise).flatten().tolist() == [-6.0] * 3


def test_flow_s_velocity_is_the_derivative_of_its_path():
    flow = RectifiedFlow()
    x0, noise = torch.randn(2, 5, 3, dtype=torch.float64).unbind(0)
    t = torch.full((5,), 400.0, dtype=torch.float64)
    step = flow.add_noise(x0, noise, t + 1) - flow.add_noise(x0, noise, t)
    torch.testing.assert_close(step * flow.steps, flow.target(x0, noise))


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_euler_with_the_exact_velocity_recovers_the_clean_target(steps):
    flow, x0 = RectifiedFlow(), 3 * torch.randn(2, 5, 3, dtype=torch.float64)
    seen = []

    def exact(noisy, t):
        seen.append(float(t[0]))
        return (noisy - x0) / (t / 1000)[:, None, None]

    got = flow.sample(exact, (2, 5, 3), steps=steps, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(got.double(), x0, atol=1e-5, rtol=0)
    assert seen == pytest.approx([1000 * (steps - i) / steps for i in range(steps)])


def test_flow_with_a_gaussian_s_optimal_velocity_samples_that_gaussian():
    flow, mean, std = RectifiedFlow(), 1.5, 0.4

    def optimal(noisy, t):
        s = (t / 1000)[:, None]
        off = (noisy - (1 - s) * mean) / ((1 - s) ** 2 * std**2 + s**2)
        return s * off - (mean + (1 - s) * std**2 * off)

    x = flow.sample(optimal, (4000, 2), steps=100, generator=torch.Generator().manual_seed(0))
    assert x.mean().item() == pytest.approx(mean, abs=0.03)
    assert x.std().item() == pytest.approx(std, rel=0.05)


def test_flow_draws_uniform_or_logit_normal_times():
    uniform, _ = RectifiedFlow().draw(20000, 1, 1, torch.Generator().manual_seed(0))
    middle, _ = RectifiedFlow("logit_normal").draw(20000, 1, 1, torch.Generator().manual_seed(0))
    for t in (uniform, middle):
        assert 0 <= t.min() < t.max() <= 1000
        assert t.mean().item() == pytest.approx(500, abs=10)
    assert ((uniform - 500).abs() < 250).float().mean().item() == pytest.approx(0.5, abs=0.02)
    # sigmoid(-1) = 0.269 and sigmoid(1) = 0.731: within one standard deviation
    assert ((middle - 500).abs() < 231).float().mean().item() == pytest.approx(0.683, abs=0.02)


def test_processes_are_named():
    assert isinstance(process_of("cosine"), CosineDiffusion)
    assert process_of("flow", "logit_normal").times == "logit_normal"
    with pytest.raises(ValueError, match=r"'flw' \(did you mean 'flow'\?\)"):
        process_of("flw")
    with pytest.raises(ValueError, match="always draws uniform times"):
        process_of("cosine", "logit_normal")
    with pytest.raises(ValueError, match="draws no 'normal' times"):
        RectifiedFlow("normal")


def test_guidance_by_hand():
    cond, uncond = torch.tensor([3.0]), torch.tensor([1.0])
    assert [guided(cond, uncond, g).item() for g in (0.0, 1.0, 2.5)] == [1.0, 3.0, 6.0]


@pytest.mark.parametrize("steps", [25, 50, 100, 1000])
def test_many_steps_sample_as_diffusers_does(steps):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", clip_sample=False)
    theirs.set_timesteps(steps)
    diffusion = CosineDiffusion()
    assert diffusion.sampling_times(steps) == theirs.timesteps.tolist()

    def predict(x, t):
        return 0.9 * x + 1e-4 * t[:, None].to(x)

    got = diffusion.sample(predict, (3, 4), steps=steps, generator=torch.Generator().manual_seed(1))
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    for t in theirs.timesteps.tolist():
        x = theirs.step(predict(x, torch.full((3,), t)), t, x).prev_sample
    torch.testing.assert_close(got, x, rtol=1e-3, atol=1e-3)


def test_few_steps_begin_where_there_is_hardly_any_signal():
    diffusion = CosineDiffusion()
    assert diffusion.sampling_times(1) == [960]
    assert diffusion.sampling_times(2) == [960, 480]
    assert diffusion.sampling_times(5) == [960, 768, 576, 384, 192]
    assert all(diffusion.sampling_times(n)[0] >= 960 for n in range(1, 101))
    assert CosineDiffusion(10).sampling_times(10) == list(range(9, -1, -1))


def test_one_step_of_an_optimal_denoiser_gives_about_the_mean():
    """Targets around a known mean: what one step from pure noise gives is that mean, little of it lost."""
    mean, std = 0.8, 0.5
    diffusion = CosineDiffusion()

    def optimal(x, t):
        a, b = diffusion._signal[t].to(x)[:, None], diffusion._noise[t].to(x)[:, None]
        clean = mean + a * std**2 / (a**2 * std**2 + b**2) * (x - a * mean)
        return (x - a * clean) / b

    got = diffusion.sample(optimal, (4000, 2), steps=1, generator=torch.Generator().manual_seed(0))
    assert float(got.mean()) == pytest.approx(mean, abs=0.01)
    assert float(got.std()) < 0.05
