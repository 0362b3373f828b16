"""Options of all reconstruction objectives: sampled latents, grounding scenes, dropout and guidance, the schedule."""

import dataclasses

import pytest
import torch

from stereopsis.errors import StereopsisError
from stereopsis.objectives import BirdsEye, CrossView, RectifiedFlow, VanillaReconstruction
from stereopsis.objectives.base import Objective
from stereopsis.objectives.plan import pointing_scenes
from stereopsis.objectives.set import ObjectiveSet

ALL = [
    pytest.param(VanillaReconstruction, {"ratio": 0.5}, id="vanilla"),
    pytest.param(CrossView, {}, id="cross_view"),
    pytest.param(CrossView, {"conditioning": "pose"}, id="pose"),
    pytest.param(BirdsEye, {"repeats": 2}, id="birds_eye"),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hidden_of(batch) -> torch.Tensor:
    """The last quarter of every scene's views, as many as the objectives expect."""
    hidden = torch.zeros(len(batch.layout.scene), dtype=torch.bool)
    for scene in range(len(batch.scene_ids)):
        views = batch.layout.views_of(scene)
        hidden[views[max(1, int(len(views) * 0.75)) :]] = True
    return hidden


def with_spread(batch, scale: float = 0.5):
    g = generator(77)
    spread = {
        f"{key}_std": scale * torch.rand(batch.targets[key].shape, generator=g, dtype=batch.targets[key].dtype)
        for key in ("view_latents", "birdseye_latents")
    }
    return dataclasses.replace(batch, targets={**batch.targets, **spread})


def with_talk(batch, *scenes: tuple[str, ...]):
    """Conversations by id, one tuple per scene; those that begin with "g" are grounding ones."""
    queries = [s for s, names in enumerate(scenes) for name in names if name.startswith("g")]
    return dataclasses.replace(
        batch,
        conversation_ids=scenes,
        query_index=torch.zeros(len(queries), dtype=torch.int64),
        query_scene=torch.tensor(queries, dtype=torch.int64),
        query_targets=torch.zeros(len(queries), 1, dtype=torch.bool),
    )


# ---- latents drawn from the posterior


@pytest.mark.parametrize(("cls", "options"), ALL)
def test_without_spread_or_with_mean_nothing_is_drawn(cls, options, make_batch, make_outputs, make_denoiser):
    batch = make_batch((4, 5))
    outputs = make_outputs(batch, hidden=hidden_of(batch))
    values = {}
    for latents in ("sample", "mean"):
        objective = cls(make_denoiser(), latents=latents, **options)
        torch.manual_seed(0)
        for name, given in (("bare", batch), ("spread", with_spread(batch)), ("zero", with_spread(batch, 0.0))):
            values[latents, name] = objective.loss(outputs, given, generator(3)).sum.item()
    assert values["mean", "bare"] == values["mean", "spread"] == values["sample", "bare"]
    assert values["sample", "spread"] != values["sample", "zero"]


@pytest.mark.parametrize("diffusion", [None, RectifiedFlow()])
def test_a_sampled_target_is_mean_plus_spread_times_noise_and_repeats_share_it(
    diffusion, make_batch, make_outputs, make_denoiser
):
    batch = with_spread(make_batch((4,), dtype=torch.float64))
    outputs = make_outputs(batch, hidden=hidden_of(batch), dtype=torch.float64)
    objective = CrossView(make_denoiser(dtype=torch.float64), diffusion=diffusion, conditioning="released")
    loss = objective.loss(outputs, batch, generator(3)).sum
    g = generator(3)
    eps = torch.randn(1, 4, 4, generator=g).view(2, 2, 4)  # one hidden view: 2x2 cells of 4 channels, drawn once
    drawn = batch.targets["view_latents"].clone()
    drawn[3] += batch.targets["view_latents_std"][3] * eps
    fixed = dataclasses.replace(batch, targets={"view_latents": drawn})
    expected = objective.loss(outputs, fixed, g).sum  # goes on where the drawing of the latents left off
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    other = objective.loss(outputs, batch, generator(4)).sum
    assert other.item() != pytest.approx(loss.item(), rel=1e-3)


@pytest.mark.parametrize(("cls", "options"), ALL)
def test_sampled_latents_keep_packing_exact(cls, options, make_batch, make_outputs, make_denoiser):
    """Two copies of a scene in one batch draw what the same scene draws twice in a row."""
    objective = cls(make_denoiser(dtype=torch.float64), **options)
    single = with_spread(make_batch((4,), dtype=torch.float64))
    outputs = make_outputs(single, hidden=hidden_of(single), dtype=torch.float64)
    g = generator(5)
    apart = [objective.loss(outputs, single, g).sum.item() for _ in range(2)]
    double = make_batch((4, 4), dtype=torch.float64)
    views = {key: getattr(single, key).repeat(2, *[1] * (getattr(single, key).ndim - 1)) for key in PER_VIEW}
    targets = {key: value.repeat(2, *[1] * (value.ndim - 1)) for key, value in single.targets.items()}
    double = dataclasses.replace(double, **views, targets=targets)
    twice = dataclasses.replace(outputs, visual=outputs.visual.repeat(2, 1, 1, 1), hidden=outputs.hidden.repeat(2))
    together = objective.loss(twice, double, generator(5)).sum.item()
    assert together == pytest.approx(sum(apart), rel=1e-9)
    assert apart[0] != pytest.approx(apart[1], rel=1e-6)


PER_VIEW = ("cameras", "intrinsics", "coordinates", "coordinates_valid")


@pytest.mark.parametrize(("cls", "options"), ALL)
@pytest.mark.parametrize("diffusion", [None, RectifiedFlow()])
def test_no_gradient_reaches_the_teacher(cls, options, diffusion, make_batch, make_outputs, make_denoiser):
    batch = with_spread(make_batch((4,)))
    for key, value in batch.targets.items():
        if value.is_floating_point():
            batch.targets[key] = value.requires_grad_()
    outputs = make_outputs(batch, hidden=hidden_of(batch))
    objective = cls(make_denoiser(), diffusion=diffusion, **options)
    objective.loss(outputs, batch, generator()).sum.backward()
    assert outputs.visual.grad.abs().sum() > 0
    assert all(value.grad is None for value in batch.targets.values())


def test_spread_of_another_shape_and_unknown_values_are_refused(make_batch, make_outputs, make_denoiser):
    batch = make_batch((2,))
    batch.targets["view_latents_std"] = torch.zeros(2, 2, 2, 1)
    with pytest.raises(ValueError, match=r"'view_latents_std'\] has shape \(2, 2, 2, 1\), its mean \(2, 2, 2, 4\)"):
        VanillaReconstruction(make_denoiser()).loss(make_outputs(batch), batch, generator())
    with pytest.raises(ValueError, match=r"'vanilla': unknown latents 'means' \(did you mean 'mean'\?\)"):
        VanillaReconstruction(make_denoiser(), latents="means")
    with pytest.raises(ValueError, match="'birds_eye': unknown grounding 'no'"):
        BirdsEye(make_denoiser(), grounding="no")


# ---- grounding scenes


def test_a_scene_points_if_all_of_its_conversations_do(make_batch):
    batch = with_talk(make_batch((1, 1, 1, 1)), ("g1", "g2"), ("g3", "q"), (), ("q",))
    assert pointing_scenes(batch) == [True, False, False, False]


@pytest.mark.parametrize(("cls", "options"), ALL)
def test_a_skipped_scene_adds_nothing_and_the_rest_is_as_without_it(
    cls, options, make_batch, make_outputs, make_denoiser
):
    batch = with_talk(make_batch((4, 4)), ("g1",), ("q", "g2"))
    protected = hidden_of(batch) & (batch.layout.scene == 1)  # as the model leaves them where scenes are skipped
    objective = cls(make_denoiser(), grounding="skip", **options)
    outputs = make_outputs(batch, hidden=protected)
    loss = objective.loss(outputs, batch, generator(2))
    loss.sum.backward()
    assert loss.count == objective.count(batch)
    assert outputs.visual.grad[:4].eq(0).all()
    assert outputs.visual.grad[4:].abs().sum() > 0
    everything = cls(make_denoiser(), **options)
    assert 0 < loss.count < everything.count(batch)
    assert everything.count(batch) == objective.count(with_talk(batch, ("q",), ("q", "g2")))
    nothing = objective.loss(outputs, with_talk(batch, ("g",), ("g",)), generator(2))
    assert (nothing.count, nothing.sum.item()) == (0, 0)


def test_the_views_of_skipped_scenes_are_spared(make_batch, make_denoiser):
    batch = with_talk(make_batch((4, 4)), ("g1",), ("q",))
    tokens = torch.randn(8, 2, 3, 6)
    for grounding, expected in (("include", [1, 1]), ("skip", [0, 1])):
        objective = CrossView(make_denoiser(), grounding=grounding, conditioning="released")
        objectives = ObjectiveSet({"cross_view": objective}, objective.denoiser)
        masking = objectives.mask(tokens, batch.layout, ("cross_view",), generator(), batch)
        assert masking.hidden.view(2, 4).sum(1).tolist() == expected
        assert masking.tokens[~masking.hidden].equal(tokens[~masking.hidden])
        assert masking.tokens[masking.hidden].eq(objective.mask_token).all()


# ---- training without a condition, and guidance


def test_dropout_withholds_the_condition_from_so_many_targets(make_batch, make_outputs, make_denoiser):
    denoiser = make_denoiser()
    denoiser.config = dataclasses.replace(denoiser.config, dropout=0.3)
    batch = make_batch((8,) * 30)
    outputs = make_outputs(batch)
    told = {}
    denoiser.forward = lambda noisy, t, condition, kind: told.setdefault("z", condition)[..., :4] * 0
    VanillaReconstruction(denoiser, ratio=1.0).loss(outputs, batch, generator())
    withheld = told["z"].eq(0).all(dim=(1, 2)).float().mean()
    assert withheld.item() == pytest.approx(0.3, abs=0.09)


@pytest.mark.parametrize("diffusion", ["cosine", "flow"])
def test_guidance_goes_from_the_unconditional_sample_through_the_conditional_one(
    diffusion, make_batch, make_outputs, make_denoiser
):
    denoiser = make_denoiser()
    denoiser.config = dataclasses.replace(denoiser.config, dropout=0.1, diffusion=diffusion)
    objective, batch = VanillaReconstruction(denoiser), make_batch((2,))
    assert type(objective.diffusion).__name__ == {"cosine": "CosineDiffusion", "flow": "RectifiedFlow"}[diffusion]
    outputs = make_outputs(batch)

    def sample(**options):
        return objective.reconstruct(outputs, batch, generator=generator(1), steps=1, **options)

    plain, more = sample(), sample(guidance=3.0)
    torch.testing.assert_close(sample(guidance=1.0), plain)
    none = sample(guidance=0.0)
    objective.condition = lambda plan, *_: torch.zeros(len(plan.source), 4, 8)
    torch.testing.assert_close(sample(), none)
    # one step is linear in the prediction
    torch.testing.assert_close(more, none + 3 * (plain - none), atol=1e-3, rtol=1e-3)


def test_guidance_without_dropout_is_refused(make_batch, make_outputs, make_denoiser):
    batch = make_batch((2,))
    with pytest.raises(ValueError, match=r"guidance 2\.0 needs a denoiser that was also trained without a condition"):
        VanillaReconstruction(make_denoiser()).reconstruct(
            make_outputs(batch), batch, generator=generator(), guidance=2.0
        )


# ---- the schedule


def test_the_schedule_is_the_same_on_every_rank_in_every_pass_and_after_resuming(
    make_batch, make_outputs, make_denoiser
):
    """Two ranks of two passes each, with their own scenes and random numbers; one starts again at step 5."""

    def objectives():
        denoiser = make_denoiser()
        members = [
            CrossView(denoiser, every=4, grounding="skip", conditioning="released"),
            BirdsEye(denoiser),
            VanillaReconstruction(denoiser, every=3),
        ]
        return ObjectiveSet({member.name: member for member in members}, denoiser)

    def passes(rank: int, step: int):
        shapes = (((4, 2), (5,)), ((8,), (1, 3)))[rank]
        for number, views in enumerate(shapes):
            batch = make_batch(views, seed=100 * step + 10 * rank + number)
            yield with_talk(batch, *((("g",) if (step + s) % 2 else ("q",)) for s in range(len(views))))

    ranks = [objectives(), objectives()]
    seen = []
    for step in range(9):
        if step == 5:
            ranks[1] = objectives()  # a resumed process remembers nothing but the step
        due = {rank.due(step) for rank in ranks}
        assert len(due) == 1
        (names,) = due
        seen.append(names)
        counted, summed = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
        for rank, owned in enumerate(ranks):
            for number, batch in enumerate(passes(rank, step)):
                g = generator(1000 * step + 10 * rank + number)
                for name in names:
                    counted[name] += owned[name].count(batch)  # before anything is computed
                tokens = torch.zeros(len(batch.layout.scene), 2, 3, 6)
                hidden = owned.mask(tokens, batch.layout, names, g, batch).hidden
                for name, loss in owned.losses(make_outputs(batch, hidden=hidden), batch, names, g).items():
                    summed[name] += loss.count
        assert counted == summed
    assert seen == [
        ("cross_view", "birds_eye", "vanilla") if step == 0 else
        ("birds_eye", "vanilla") if step % 3 == 0 else
        ("cross_view", "birds_eye") if step % 4 == 0 else ("birds_eye",)
        for step in range(9)
    ]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), [("corrupt", "mask"), ("spares", "protected_views")])
def test_an_objective_in_the_old_form_is_refused(old, new):
    """Its method would never be called, and nothing would be hidden from the model."""
    with pytest.raises(StereopsisError, match=f"objective Old has a method '{old}', which is called '{new}' now"):
        type("Old", (Objective,), {"name": "old", old: lambda self, *arguments: None})
