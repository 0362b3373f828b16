"""Bird's-eye conditions that know where each cell lies."""

import dataclasses

import pytest
import torch

from stereopsis.data.pack import GROUND
from stereopsis.errors import RecipeError
from stereopsis.objectives import BirdsEye
from stereopsis.objectives.plan import joined, scene_views
from stereopsis.objectives.set import require_targets
from stereopsis.packs.targets import ground_cells


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def placed(make_batch, views, **options):
    batch = make_batch(views, **options)
    draw = generator()
    batch.targets[GROUND] = torch.rand(len(views), 3, 3, 2, generator=draw) * 4
    coordinates = torch.rand(batch.coordinates.shape, generator=draw) * 4
    return dataclasses.replace(batch, coordinates=coordinates)


def test_cells_lie_where_the_picture_says():
    """A picture of two metres a side whose top-left corner is at (1, 5): 2 x 2 cells of one metre."""
    expected = [[[1.5, 4.5], [2.5, 4.5]], [[1.5, 3.5], [2.5, 3.5]]]
    assert ground_cells((1.0, 5.0, 2.0), 2, 2).tolist() == expected


def test_a_moved_cell_gets_another_condition_and_the_others_keep_theirs(make_batch, make_outputs, make_denoiser):
    objective = BirdsEye(make_denoiser(), conditioning="pose")
    batch = placed(make_batch, (3, 2))
    outputs = make_outputs(batch)
    hidden = outputs.hidden.tolist()
    parts = [objective.picture_targets(s, v, hidden, batch) for s, v in enumerate(scene_views(batch))]
    plan = joined(parts, torch.device("cpu"))
    before = objective.condition(plan, outputs, batch)
    assert before.shape == (2, 9, 8)
    moved = batch.targets[GROUND].clone()
    moved[1, 0, 2] += 1.0
    batch.targets[GROUND] = moved
    after = objective.condition(plan, outputs, batch)
    changed = (after != before).any(-1)
    assert changed.nonzero().tolist() == [[1, 2]]


def test_packed_scenes_cost_what_they_cost_alone(make_batch, make_outputs, make_denoiser):
    objective = BirdsEye(make_denoiser(), conditioning="pose")
    batch = placed(make_batch, (3, 2))
    outputs = make_outputs(batch)
    draw = generator()
    together = objective.loss(outputs, batch, draw)
    draw, alone = generator(), []
    for number, views in enumerate((slice(0, 3), slice(3, 5))):
        single = make_batch((views.stop - views.start,))
        for key in ("birdseye_latents", "birdseye_valid", GROUND):
            single.targets[key] = batch.targets[key][number : number + 1]
        fields = {k: getattr(batch, k)[views] for k in ("coordinates", "coordinates_valid", "cameras", "intrinsics")}
        single = dataclasses.replace(single, **fields)
        part = type(outputs)(visual=outputs.visual[views], hidden=outputs.hidden[views])
        alone.append(objective.loss(part, single, draw))
    torch.testing.assert_close(together.sum, sum(loss.sum for loss in alone))
    assert together.count == sum(loss.count for loss in alone)
    together.sum.backward()
    assert outputs.visual.grad.abs().sum() > 0
    assert objective.place.places.weight.grad.abs().sum() > 0


def test_its_parameters_exist_only_when_asked_for(make_denoiser):
    assert not list(BirdsEye(make_denoiser()).parameters())
    assert list(BirdsEye(make_denoiser(), conditioning="pose").parameters())
    with pytest.raises(ValueError, match="unknown conditioning 'masked_positions'"):
        BirdsEye(make_denoiser(), conditioning="masked_positions")


def test_cells_without_a_place_are_refused_before_the_first_step(make_batch, make_denoiser):
    batch = make_batch((2,))
    objective = BirdsEye(make_denoiser(), conditioning="pose")
    with pytest.raises(RecipeError, match=f"needs the target '{GROUND}'"):
        require_targets("birds_eye", objective.needs, batch.targets)
