"""The diffusion process D of the reconstruction objectives: the released cosine one, or rectified flow.

Both speak one language, `Process`: latents of time 0 are clean, those of the last time pure noise, and times are
given to the network in steps of a thousand, so that the same network serves either.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor

from stereopsis.errors import did_you_mean

TIMES = ("uniform", "logit_normal")
LEAST_LEADING = 25
"""From so many sampling steps on, the cosine process takes diffusers' timesteps."""
FIRST_SHARE = 0.96
"""Where sampling in fewer steps begins, as a share of the way to pure noise."""
PredictFn = Callable[[Tensor, Tensor], Tensor]
"""(noisy targets, their timesteps [targets]) -> what the process asks the network to predict."""


class Process(abc.ABC):
    """How latents are mixed with noise, what the network predicts of the mixture, and the way back.

    Attributes:
        steps: timesteps lie in 0..steps; the network sees them as they are.
        steps_for_mean: sampling steps whose draws are averaged best for an estimate of the mean.
    """

    steps: int = 1000
    steps_for_mean: int = 25

    def draw(
        self, targets: int, cells: int, channels: int, generator: torch.Generator
    ) -> tuple[Real[Tensor, "targets"], Float[Tensor, "targets cells channels"]]:
        """Timesteps and unit noise for some targets, from a CPU generator and on the CPU."""
        t = self.draw_times(targets, generator)
        return t, torch.randn(targets, cells, channels, generator=generator)

    @abc.abstractmethod
    def draw_times(self, targets: int, generator: torch.Generator) -> Real[Tensor, "targets"]:
        """Timesteps to train on."""

    @abc.abstractmethod
    def add_noise(
        self, x0: Float[Tensor, "targets *cell"], noise: Float[Tensor, "targets *cell"], t: Real[Tensor, "targets"]
    ) -> Float[Tensor, "targets *cell"]:
        """Mix noise into clean targets, each at its own timestep."""

    @abc.abstractmethod
    def target(
        self, x0: Float[Tensor, "targets *cell"], noise: Float[Tensor, "targets *cell"]
    ) -> Float[Tensor, "targets *cell"]:
        """What the network should predict of this mixture."""

    def sample(
        self,
        predict: PredictFn,
        shape: tuple[int, ...],
        *,
        generator: torch.Generator,
        steps: int = 50,
        device: torch.device | str = "cpu",
    ) -> Float[Tensor, "targets *cell"]:
        """Draw clean targets from noise, deterministically once the noise is drawn.

        Args:
            predict: the network.
            shape: shape of the result, targets first.
            generator: CPU generator of the starting noise.
            steps: sampling steps, at most the training steps.
            device: where to compute.

        Raises:
            ValueError: steps out of range.
        """
        if not 1 <= steps <= self.steps:
            raise ValueError(f"sampling steps must lie in 1..{self.steps}, got {steps}")
        noise = torch.randn(shape, generator=generator).to(device)
        with torch.no_grad():
            return self._walk(predict, noise, steps)

    @abc.abstractmethod
    def _walk(self, predict: PredictFn, noise: Tensor, steps: int) -> Tensor:
        """From noise to clean targets in so many steps."""


class CosineDiffusion(Process):
    """x_t = sqrt(alpha_t) x_0 + sqrt(1 - alpha_t) noise; the network predicts the noise (Ross3D section 3).

    alpha_t is the cumulative product of the cosine schedule, timesteps are uniform integers, samples are drawn by
    deterministic DDIM. The schedule is diffusers' (`squaredcos_cap_v2`), and so is the sampler, where it has enough
    steps (see `sampling_times`).

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

    def draw_times(self, targets: int, generator: torch.Generator) -> Real[Tensor, "targets"]:
        """Uniform integers in 0..steps - 1."""
        return torch.randint(self.steps, (targets,), generator=generator)

    def add_noise(
        self, x0: Float[Tensor, "targets *cell"], noise: Float[Tensor, "targets *cell"], t: Real[Tensor, "targets"]
    ) -> Float[Tensor, "targets *cell"]:
        """Mix noise into clean targets, each at its own timestep (0 = almost clean)."""
        shape = (-1, *[1] * (x0.ndim - 1))
        signal, spread = (x.to(x0.dtype).to(x0.device)[t] for x in (self._signal, self._noise))
        return signal.reshape(shape) * x0 + spread.reshape(shape) * noise

    def target(
        self, x0: Float[Tensor, "targets *cell"], noise: Float[Tensor, "targets *cell"]
    ) -> Float[Tensor, "targets *cell"]:
        """The noise."""
        return noise

    def sampling_times(self, steps: int) -> list[int]:
        """Timesteps of the sampler, noisiest first.

        From `LEAST_LEADING` steps on they are diffusers' ("leading"), where they divide the training steps. With fewer,
        those would take pure noise for a picture that is half there already (2 steps: t = 500 and 0) or for a finished
        one (1 step: t = 0); then they are spread evenly from 96 % of the way, where hardly any signal is left and the
        network's errors are not yet blown up beyond measure (x_0 is off by its error times 16 there, times 20 000 at
        the last timestep).
        """
        if steps >= min(LEAST_LEADING, self.steps) and self.steps % steps == 0:
            return [k * (self.steps // steps) for k in range(steps - 1, -1, -1)]
        first = FIRST_SHARE * self.steps
        return [min(self.steps - 1, round(first * (steps - k) / steps)) for k in range(steps)]

    def _walk(self, predict: PredictFn, noise: Tensor, steps: int) -> Tensor:
        times = self.sampling_times(steps)
        x = noise
        for t, following in zip(times, [*times[1:], None], strict=True):
            predicted = predict(x, torch.full((len(x),), t, dtype=torch.int64, device=x.device))
            clean = (x - float(self._noise[t]) * predicted) / float(self._signal[t])
            if following is None:
                return clean
            x = float(self._signal[following]) * clean + float(self._noise[following]) * predicted
        return x


class RectifiedFlow(Process):
    """x_t = (1 - s) x_0 + s noise with s = t / 1000; the network predicts the velocity noise - x_0.

    The straight paths of Liu et al. (arXiv 2209.03003), from data at s = 0 to noise at s = 1; the direction is that
    of Stable Diffusion 3 (arXiv 2403.03206), so that a larger timestep means more noise, as with the cosine schedule.
    Samples are drawn by Euler steps of equal length.

    Args:
        times: "uniform" in s, or "logit_normal": the sigmoid of a unit normal, which dwells on the middle
            (arXiv 2403.03206, section 3.1).

    Raises:
        ValueError: unknown times.
    """

    steps_for_mean = 1  # the first step from pure noise estimates it

    def __init__(self, times: str = "uniform") -> None:
        if times not in TIMES:
            raise ValueError(f"rectified flow draws no '{times}' times{did_you_mean(times, TIMES)}")
        self.times = times

    def draw_times(self, targets: int, generator: torch.Generator) -> Real[Tensor, "targets"]:
        """Real numbers in 0..1000."""
        if self.times == "uniform":
            return torch.rand(targets, generator=generator) * self.steps
        return torch.randn(targets, generator=generator).sigmoid() * self.steps

    def add_noise(
        self, x0: Float[Tensor, "targets *cell"], noise: Float[Tensor, "targets *cell"], t: Real[Tensor, "targets"]
    ) -> Float[Tensor, "targets *cell"]:
        """The point between the clean target (t = 0) and the noise (t = 1000)."""
        share = (t.to(x0.dtype) / self.steps).reshape(-1, *[1] * (x0.ndim - 1))
        return (1 - share) * x0 + share * noise

    def target(
        self, x0: Float[Tensor, "targets *cell"], noise: Float[Tensor, "targets *cell"]
    ) -> Float[Tensor, "targets *cell"]:
        """The velocity, from the clean target towards the noise."""
        return noise - x0

    def _walk(self, predict: PredictFn, noise: Tensor, steps: int) -> Tensor:
        x = noise
        for step in range(steps, 0, -1):
            t = torch.full((len(x),), self.steps * step / steps, dtype=x.dtype, device=x.device)
            x = x - predict(x, t) / steps
        return x


PROCESSES: Mapping[str, type[Process]] = {"cosine": CosineDiffusion, "flow": RectifiedFlow}


def process_of(name: str, times: str = "uniform") -> Process:
    """The process that recipes call by this name.

    Raises:
        ValueError: unknown name, or other than uniform times for a process that has no choice.
    """
    if name not in PROCESSES:
        raise ValueError(f"unknown diffusion process '{name}'{did_you_mean(name, PROCESSES)}")
    if name == "flow":
        return RectifiedFlow(times)
    if times != "uniform":
        raise ValueError(f"diffusion '{name}' always draws uniform times, got '{times}'; use 'flow', or 'uniform'")
    return CosineDiffusion()


def guided(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598): 1 = the conditional prediction, more = away from the other."""
    return unconditional + guidance * (conditional - unconditional)
