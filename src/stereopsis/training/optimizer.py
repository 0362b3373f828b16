"""AdamW (also with 8-bit state), or Muon for the hidden matrices with AdamW for the rest, behind one interface."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stereopsis.errors import MissingExtraError, RecipeError, did_you_mean
from stereopsis.models.spatial import SpatialModel

HEAD_PARTS = ("grounding.", "objectives.")
EIGHT_BIT: Mapping[str, str] = {"adamw8bit": "AdamW8bit", "paged_adamw8bit": "PagedAdamW8bit"}
"""Optimizers of the package bitsandbytes, by their names here and there."""
OPTIMIZERS = ("adamw", *EIGHT_BIT, "muon")
_NOT_HIDDEN = ("embed", "lm_head", "cls_token", "mask_token", "zero_target", "newline")


class Muon(torch.optim.Muon):
    """Torch's Muon, with a say in what it orthogonalises in: torch's does it in bfloat16, which many CPUs emulate.

    Args:
        params: parameter groups of 2-D parameters.
        orthogonal: dtype of the Newton-Schulz iteration.
        options: torch's.
    """

    def __init__(self, params: Any, *, orthogonal: torch.dtype, **options: Any) -> None:
        super().__init__(params, **options)
        self.orthogonal = orthogonal

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step."""
        if self.orthogonal == torch.bfloat16:
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if not group["nesterov"] or group["adjust_lr_fn"] != "match_rms_adamw":
                raise ValueError("only Nesterov momentum and adjust_lr_fn='match_rms_adamw' are computed here")
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, parameter.grad, group)
        return loss

    def _step_one(self, parameter: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        update = orthogonalised(
            gradient.lerp(momentum, group["momentum"]).to(self.orthogonal),
            coefficients=group["ns_coefficients"],
            steps=group["ns_steps"],
            eps=group["eps"],
        )
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * 0.2 * max(parameter.shape) ** 0.5)


def orthogonalised(
    matrix: Float[Tensor, "rows cols"], *, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Float[Tensor, "rows cols"]:
    """The orthogonal matrix nearest to one, roughly: all singular values are brought near 1.

    A quintic Newton-Schulz iteration, X <- aX + (bA + cA^2) X with A = X X^T, from X scaled to a norm of 1 (K. Jordan's
    Muon, 2024).

    Args:
        matrix: what to orthogonalise.
        coefficients: a, b and c.
        steps: iterations.
        eps: least norm to divide by.
    """
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon on matrices and AdamW on everything else, stepped together.

    Muon's update is scaled to AdamW's usual size (``match_rms_adamw``), so that one learning rate serves both.

    Args:
        matrices: parameter groups of 2-D parameters.
        others: parameter groups of the rest.
        betas: AdamW's.
        orthogonal: what Muon orthogonalises in.
    """

    def __init__(
        self,
        matrices: Sequence[dict[str, Any]],
        others: Sequence[dict[str, Any]],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        orthogonal: torch.dtype = torch.float32,
    ) -> None:
        self.parts: tuple[torch.optim.Optimizer, ...] = (
            Muon(list(matrices), adjust_lr_fn="match_rms_adamw", weight_decay=0.0, orthogonal=orthogonal),
            torch.optim.AdamW(list(others), betas=betas),
        )
        super().__init__([p for part in self.parts for g in part.param_groups for p in g["params"]], {})
        self._join()

    def _join(self) -> None:
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step both."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both states."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._join()


def build_optimizer(
    model: SpatialModel,
    *,
    name: str,
    learning_rate: float,
    head_rate: float,
    weight_decay: float,
    vision_rate: float | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
    orthogonal: torch.dtype = torch.float32,
) -> torch.optim.Optimizer:
    """An optimizer over the trainable parameters; norms and biases do not decay.

    Args:
        model: whose parameters.
        name: one of `OPTIMIZERS`.
        learning_rate: of the backbone.
        head_rate: of what starts untrained (grounding head, objectives' heads).
        weight_decay: of matrices.
        vision_rate: of the vision tower, where it is trained; None = the backbone's.
        betas: AdamW's.
        orthogonal: what Muon orthogonalises in.

    Raises:
        RecipeError: unknown name.
        MissingExtraError: the package of an 8-bit optimizer is not installed.
    """
    rates = {"backbone": learning_rate, "heads": head_rate, "vision": vision_rate or learning_rate}
    tower = {id(parameter) for parameter in model.adapter.vision_tower.parameters()}
    groups: dict[tuple[bool, str], list[nn.Parameter]] = {}
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            hidden = is_hidden_matrix(key, parameter)
            part = "heads" if key.startswith(HEAD_PARTS) else "vision" if id(parameter) in tower else "backbone"
            groups.setdefault((hidden, part), []).append(parameter)
    made = {
        kind: {
            "params": members,
            "lr": rates[kind[1]],
            "weight_decay": weight_decay if kind[0] else 0.0,
        }
        for kind, members in sorted(groups.items())
    }
    matrices = [group for kind, group in made.items() if kind[0]]
    others = [group for kind, group in made.items() if not kind[0]]
    if name == "muon":
        return MuonWithAdamW(matrices, others, betas=betas, orthogonal=orthogonal)
    return adamw_of(name)([*matrices, *others], betas=betas)


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon would step a parameter, by its name in the model: a matrix that is no table and no output head."""
    return parameter.ndim == 2 and not any(part in name for part in _NOT_HIDDEN)


def adamw_of(name: str) -> Callable[..., torch.optim.Optimizer]:
    """The class of an AdamW by its name in recipes.

    Raises:
        RecipeError: unknown name.
        MissingExtraError: it is one of bitsandbytes', which is not installed.
    """
    if name == "adamw":
        return torch.optim.AdamW
    if name not in EIGHT_BIT:
        raise RecipeError(f"training.optimizer: unknown optimizer '{name}'{did_you_mean(name, OPTIMIZERS)}")
    try:
        import bitsandbytes
    except ImportError as error:
        raise MissingExtraError("bitsandbytes", "bnb", f"'training.optimizer: {name}'") from error
    made: Callable[..., torch.optim.Optimizer] = getattr(bitsandbytes.optim, EIGHT_BIT[name])
    return made
