"""The diffusion process D of the reconstruction objectives: cosine schedule, noise prediction, uniform steps.

Ross3D section 3 trains with 1000 steps and the cosine schedule; the schedule and the deterministic DDIM
sampler are diffusers'.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

DenoiseFn = Callable[[Tensor, Tensor], Tensor]
"""(noisy targets, their timesteps [targets]) -> predicted noise."""


class CosineDiffusion:
    """x_t = sqrt(alpha_t) x_0 + sqrt(1 - alpha_t) noise, alpha_t the cosine schedule's cumulative product.

    Attributes:
        steps: number of training timesteps.
        betas: [steps] variance added at each step (float32, CPU).
        alphas_cumprod: [steps] share of the signal's variance that is left (float32, CPU).
    """

    betas: Float[Tensor, "steps"]
    alphas_cumprod: Float[Tensor, "steps"]

    def __init__(self, steps: int = 1000) -> None:
        from diffusers import DDPMScheduler

        if steps < 1:
            raise ValueError(f"diffusion needs at least one training step, got {steps}")
        schedule: Any = DDPMScheduler(num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2")
        self.steps = steps
        self.betas = schedule.betas
        self.alphas_cumprod = schedule.alphas_cumprod
        # float64: near t = 0 the noise share 1 - alpha would lose its digits in float32
        alpha = (1 - self.betas.double()).cumprod(0)
        self._signal, self._noise = alpha.sqrt(), (1 - alpha).sqrt()

    def draw(
        self, targets: int, cells: int, channels: int, generator: torch.Generator
    ) -> tuple[Int64[Tensor, "targets"], Float[Tensor, "targets cells channels"]]:
        """Uniform timesteps and unit noise for some targets, from a CPU generator and on the CPU."""
        t = torch.randint(self.steps, (targets,), generator=generator)
        return t, torch.randn(targets, cells, channels, generator=generator)

    def add_noise(
        self,
        x0: Float[Tensor, "targets *cell"],
        noise: Float[Tensor, "targets *cell"],
        t: Int64[Tensor, "targets"],
    ) -> Float[Tensor, "targets *cell"]:
        """Mix noise into clean targets, each at its own timestep (0 = almost clean)."""
        shape = (-1, *[1] * (x0.ndim - 1))
        signal, spread = (x.to(x0.dtype).to(x0.device)[t] for x in (self._signal, self._noise))
        return signal.reshape(shape) * x0 + spread.reshape(shape) * noise

    @torch.no_grad()
    def sample(
        self,
        denoise: DenoiseFn,
        shape: tuple[int, ...],
        *,
        generator: torch.Generator,
        steps: int = 50,
        device: torch.device | str = "cpu",
    ) -> Float[Tensor, "targets *cell"]:
        """Draw clean targets by deterministic DDIM from noise.

        Args:
            denoise: predicts the noise from (noisy targets, timesteps).
            shape: shape of the result, targets first.
            generator: CPU generator of the starting noise.
            steps: sampling steps, at most the training steps.
            device: where to compute.

        Raises:
            ValueError: steps out of range.
        """
        from diffusers import DDIMScheduler

        if not 1 <= steps <= self.steps:
            raise ValueError(f"sampling steps must lie in 1..{self.steps}, got {steps}")
        scheduler: Any = DDIMScheduler(
            num_train_timesteps=self.steps, beta_schedule="squaredcos_cap_v2", clip_sample=False
        )
        scheduler.set_timesteps(steps)
        x = torch.randn(shape, generator=generator).to(device)
        for t in scheduler.timesteps.tolist():
            predicted = denoise(x, torch.full((shape[0],), t, dtype=torch.int64, device=x.device))
            x = scheduler.step(predicted, t, x).prev_sample
        return x
