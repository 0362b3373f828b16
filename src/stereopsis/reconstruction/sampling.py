"""What a model imagines of a scene: sampled latents of hidden views and of the view from above, beside plain guesses.

A denoiser draws from a distribution. Were it perfect, a draw would miss the target by twice as much as the
distribution's mean does (in squared error: the target's own variance, plus the draw's), so that a blurred guess such as
the mean image may win against single draws by squared error alone. The fair estimate of what the model expects is the
mean of several draws; both are kept, and so is how far the draws lie apart.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stereopsis.data.batch import Batch
from stereopsis.data.pack import ScenePack
from stereopsis.errors import StereopsisError
from stereopsis.models.spatial import SpatialModel
from stereopsis.objectives.reconstruction import BirdsEye, CrossView
from stereopsis.objectives.set import ObjectiveSet

Kind = Literal["masked_view", "birds_eye"]
MEAN_IMAGE, MEAN_OF_VISIBLE, NEAREST, ONE_CELL = "mean image", "mean of visible views", "nearest view", "one mean cell"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Imagined:
    """One target and what was made of it, as latent cells on the CPU.

    Attributes:
        kind: a hidden view, or the scene from above.
        scene_id: the scene.
        view: the hidden view's name; None from above.
        visible: indices, in the pack, of the views that the model saw.
        truth: the teacher's cells.
        counted: False for cells that show nothing that was seen (from above).
        samples: draws from the denoiser.
        by_steps: one draw for each number of sampling steps that was asked for, all from the same noise.
        guesses: what needs no model, by name.
    """

    kind: Kind
    scene_id: str
    view: str | None
    visible: tuple[int, ...]
    truth: Float[Tensor, "rows cols channels"]
    counted: Bool[Tensor, "rows cols"]
    samples: Float[Tensor, "samples rows cols channels"]
    by_steps: Mapping[int, Float[Tensor, "rows cols channels"]]
    guesses: Mapping[str, Float[Tensor, "rows cols channels"]]

    @property
    def spread(self) -> float | None:
        """Variance between the draws, mean over channels and counted cells (unbiased); None for a single draw."""
        if len(self.samples) < 2 or not bool(self.counted.any()):
            return None
        return float(self.samples.var(dim=0)[self.counted].mean())


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MeanCells:
    """The mean image of some training scenes, cell by cell: the best guess that looks at nothing.

    Attributes:
        view: of a view.
        birdseye: from above, over the scenes that show something in that cell; None where no scene has such a view.
    """

    view: Float[Tensor, "rows cols channels"]
    birdseye: Float[Tensor, "r c channels"] | None = None


def mean_cells(packs: Iterable[ScenePack]) -> MeanCells:
    """Average the targets of some packs.

    Raises:
        StereopsisError: there are no packs, or they have no latents.
    """
    packs = [pack for pack in packs if "view_latents" in pack.view_targets]
    if not packs:
        raise StereopsisError("a mean image needs packs with latent targets; build them with a latent teacher")
    view = torch.cat([pack.view_targets["view_latents"].float() for pack in packs]).mean(dim=0)
    above = [pack.scene_targets for pack in packs if "birdseye_latents" in pack.scene_targets]
    if not above:
        return MeanCells(view=view)
    seen = torch.stack([targets["birdseye_valid"] for targets in above]).float()[..., None]
    cells = torch.stack([targets["birdseye_latents"].float() for targets in above])
    anywhere = (cells * seen).sum(dim=(0, 1, 2)) / seen.sum().clamp(min=1)
    count = seen.sum(dim=0)
    mean = torch.where(count > 0, (cells * seen).sum(dim=0) / count.clamp(min=1), anywhere)
    return MeanCells(view=view, birdseye=mean)


def imagining_objectives(model: SpatialModel) -> ObjectiveSet:
    """The objectives of a model that can imagine.

    Raises:
        StereopsisError: the model was opened without training heads, or trains neither cross-view nor bird's-eye view.
    """
    objectives = model.objectives
    if objectives is None or not ("cross_view" in objectives or "birds_eye" in objectives):
        raise StereopsisError(
            "this model has no heads that imagine hidden views or the view from above; open a run with "
            "'stereopsis.training.posthoc_heads.open_with_heads', or fit heads with 'fit_denoiser'"
        )
    return objectives


@torch.no_grad()
def imagine(
    model: SpatialModel,
    pack: ScenePack,
    *,
    samples: int = 1,
    steps: int = 25,
    by_steps: Sequence[int] = (),
    seed: int = 0,
    means: MeanCells | None = None,
) -> list[Imagined]:
    """Hide some views of a scene and draw them, and draw the scene from above from all its views.

    Which views are hidden depends on the seed alone, so two models that are given the same seed are asked the same.

    Args:
        model: with reconstruction objectives (see `imagining_objectives`).
        pack: with the targets of the teacher that the model was trained with.
        samples: how many draws.
        steps: sampling steps of each.
        by_steps: further numbers of steps at which one draw is taken, each from the noise of the first draw.
        seed: of hidden views and noise.
        means: adds the guess "mean image".
    """
    objectives = imagining_objectives(model)
    batch = model.collator()([pack.replace(conversations=())]).to(model.device)
    masks = torch.Generator().manual_seed(seed)
    asked: list[tuple[Literal["cross_view", "birds_eye"], tuple[str, ...]]] = []
    if "cross_view" in objectives:
        asked.append(("cross_view", ("cross_view",)))
    if "birds_eye" in objectives and "birdseye_latents" in batch.targets:
        asked.append(("birds_eye", ()))
    found: list[Imagined] = []
    for name, due in asked:
        objective = objectives[name]
        assert isinstance(objective, (CrossView, BirdsEye))
        outputs = model.outputs(batch, due, masks)

        def draw(number: int, count: int, objective=objective, outputs=outputs) -> Tensor:
            noise = torch.Generator().manual_seed(1_000_003 * (seed + 1) + number)
            return objective.reconstruct(outputs, batch, generator=noise, steps=count).float().cpu()

        draws = torch.stack([draw(number, steps) for number in range(samples)], dim=1)
        ladder = {count: draw(0, count) for count in by_steps}
        hidden = outputs.hidden.tolist()
        visible = tuple(i for i, is_hidden in enumerate(hidden) if not is_hidden)
        targets = [i for i, is_hidden in enumerate(hidden) if is_hidden] if name == "cross_view" else [0]
        for index, target in enumerate(targets):
            rungs = {count: cells[index] for count, cells in ladder.items()}
            make = _hidden_view if name == "cross_view" else _from_above
            found.append(make(pack, batch, target, visible, draws[index], rungs, means))
    return found


def _hidden_view(
    pack: ScenePack,
    batch: Batch,
    view: int,
    visible: tuple[int, ...],
    samples: Tensor,
    by_steps: dict[int, Tensor],
    means: MeanCells | None,
) -> Imagined:
    latents = pack.view_targets["view_latents"].float()
    nearest = min(visible, key=lambda v: (camera_distance(pack.cameras[v], pack.cameras[view]), v))
    guesses = {MEAN_OF_VISIBLE: latents[list(visible)].mean(dim=0), NEAREST: latents[nearest]}
    if means is not None:
        guesses = {MEAN_IMAGE: means.view, **guesses}
    return Imagined(
        kind="masked_view",
        scene_id=pack.scene_id,
        view=pack.frame_names[view],
        visible=visible,
        truth=latents[view],
        counted=torch.ones(latents.shape[1:3], dtype=torch.bool),
        samples=samples,
        by_steps=by_steps,
        guesses=guesses,
    )


def _from_above(
    pack: ScenePack,
    batch: Batch,
    scene: int,
    visible: tuple[int, ...],
    samples: Tensor,
    by_steps: dict[int, Tensor],
    means: MeanCells | None,
) -> Imagined:
    truth, counted = pack.scene_targets["birdseye_latents"].float(), pack.scene_targets["birdseye_valid"].bool()
    # The target's own mean, which nobody could know: no picture of one repeated cell can do better.
    own = truth[counted].mean(dim=0) if bool(counted.any()) else truth.new_zeros(truth.shape[-1])
    guesses = {ONE_CELL: own.expand_as(truth)}
    if means is not None and means.birdseye is not None:
        guesses = {MEAN_IMAGE: means.birdseye, **guesses}
    return Imagined(
        kind="birds_eye",
        scene_id=pack.scene_id,
        view=None,
        visible=visible,
        truth=truth,
        counted=counted,
        samples=samples,
        by_steps=by_steps,
        guesses=guesses,
    )


def camera_distance(a: Float[Tensor, "4 4"], b: Float[Tensor, "4 4"]) -> float:
    """Metres between two cameras plus radians between their viewing directions."""
    turn = torch.arccos((a[:3, 2] * b[:3, 2]).sum().clamp(-1, 1))
    return float((a[:3, 3] - b[:3, 3]).norm() + turn)
