import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereopsis.objectives import (
    BirdsEye,
    CosineDiffusion,
    CrossView,
    Denoiser,
    DenoiserConfig,
    RectifiedFlow,
    SpatialOutputs,
    VanillaReconstruction,
)
from stereopsis.objectives.plan import kept_views
from stereopsis.objectives.reconstruction_base import ReconstructionObjective
from stereopsis.objectives.set import ObjectiveSet

PER_VIEW = ("images", "cameras", "intrinsics", "coordinates", "coordinates_valid")
PER_SCENE = ("input_ids", "position_ids", "segments", "labels", "scene_ids", "conversation_ids")
ALL = [
    pytest.param(VanillaReconstruction, {"ratio": 0.5}, id="vanilla"),
    pytest.param(CrossView, {}, id="cross_view"),
    pytest.param(CrossView, {"conditioning": "masked_positions"}, id="masked_positions"),
    pytest.param(CrossView, {"conditioning": "pose"}, id="pose"),
    pytest.param(BirdsEye, {"repeats": 2}, id="birds_eye"),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hide(objective: CrossView, batch, seed: int = 5) -> torch.Tensor:
    tokens = torch.zeros(len(batch.layout.scene), 2, 3, len(objective.mask_token))
    return objective.mask(tokens, batch.layout, generator(seed)).hidden


def one_scene(batch, outputs, scene: int):
    """The batch and outputs that one scene of a batch would give alone."""
    views = batch.layout.views_of(scene)
    single = dataclasses.replace(
        batch,
        layout=dataclasses.replace(
            batch.layout, index=batch.layout.index[views], scene=torch.zeros_like(batch.layout.scene[views])
        ),
        **{key: getattr(batch, key)[scene : scene + 1] for key in PER_SCENE},
        **{key: getattr(batch, key)[views] for key in PER_VIEW},
        targets={
            key: value[scene : scene + 1] if key.startswith("birdseye") else value[views]
            for key, value in batch.targets.items()
        },
    )
    return single, SpatialOutputs(visual=outputs.visual[views], hidden=outputs.hidden[views])


# ---- values


@pytest.mark.parametrize(("cls", "options"), ALL)
def test_an_untrained_denoiser_scores_the_squared_noise(cls, options, make_batch, make_outputs, make_denoiser):
    """Its prediction is 0, so the loss is the noise's own square: replay the draws and sum it by hand."""
    objective = cls(make_denoiser(randomised=False), **options)
    batch = make_batch((4,))
    hidden = hide(CrossView(make_denoiser(), conditioning="released"), batch)
    loss = objective.loss(make_outputs(batch, hidden=hidden), batch, generator(3))
    g = generator(3)
    cells, targets = {"vanilla": (4, 2), "cross_view": (4, 4), "birds_eye": (9, 2)}[objective.name]
    if objective.name == "vanilla":
        torch.randperm(4, generator=g)
    torch.randint(1000, (targets,), generator=g)
    expected = torch.randn(targets, cells, 4, generator=g).square().mean(dim=-1)
    if objective.name == "birds_eye":
        expected = expected * batch.targets["birdseye_valid"].flatten()
        assert 0 < batch.targets["birdseye_valid"].sum() < 9
    assert loss.sum.item() == pytest.approx(expected.sum().item(), rel=1e-6)


def test_a_perfect_denoiser_scores_zero(make_batch, make_outputs, make_denoiser, monkeypatch):
    """The noise is what is left of x_t after the latents; a denoiser that knows them has no loss."""
    denoiser = make_denoiser()
    batch = make_batch((4,))
    diffusion = CosineDiffusion()
    objective = VanillaReconstruction(denoiser, ratio=1.0, diffusion=diffusion)
    latents = batch.targets["view_latents"].flatten(1, 2)
    order = torch.randperm(4, generator=generator(3))

    def exact(noisy, t, condition, kind):
        alpha = diffusion.alphas_cumprod[t][:, None, None]
        return (noisy - alpha.sqrt() * latents[order]) / (1 - alpha).sqrt()

    monkeypatch.setattr(denoiser, "forward", exact)
    loss = objective.loss(make_outputs(batch), batch, generator(3))
    assert loss.sum.item() < 1e-6
    monkeypatch.setattr(denoiser, "forward", lambda *a: exact(*a).flip(0))
    assert objective.loss(make_outputs(batch), batch, generator(3)).sum.item() > 1


@settings(max_examples=15, deadline=None)
@given(
    views=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    ratio=st.floats(0.05, 0.95),
    repeats=st.sampled_from([None, 1, 3]),
)
def test_count_is_known_before_the_forward_pass(make_batch, make_outputs, make_denoiser, views, ratio, repeats):
    batch, denoiser = make_batch(tuple(views)), make_denoiser()
    cross = CrossView(denoiser, ratio=ratio, repeats=repeats, conditioning="released")
    outputs = make_outputs(batch, hidden=hide(cross, batch))
    for objective in (cross, VanillaReconstruction(denoiser, ratio=ratio), BirdsEye(denoiser)):
        loss = objective.loss(outputs, batch, generator())
        assert loss.count == objective.count(batch)
        assert loss.sum.isfinite()
        assert (loss.sum > 0) == (loss.count > 0)
        loss.sum.backward()


def test_count_hand_values(make_batch, make_denoiser):
    denoiser = make_denoiser()
    batch = make_batch((7, 1, 4))
    # 7 views: 5 stay, 2 hidden, 7 // 2 = 3 repeats; 1 view: none hidden; 4 views: 1 hidden, 4 repeats
    assert CrossView(denoiser, conditioning="released").count(batch) == 4 * (2 * 3 + 0 + 1 * 4)
    assert CrossView(denoiser, repeats=1, conditioning="released").count(batch) == 4 * (2 + 1)
    assert VanillaReconstruction(denoiser).count(batch) == 4 * (1 + 1 + 1)
    assert BirdsEye(denoiser, repeats=2).count(batch) == 2 * batch.targets["birdseye_valid"].sum()


# ---- what is hidden


def test_the_paper_s_quarter_of_32_views_is_8():
    assert kept_views(32, 0.25) == 24
    assert [kept_views(v, 0.25) for v in (0, 1, 2, 3, 4, 5, 8)] == [0, 1, 1, 2, 3, 3, 6]
    assert kept_views(10, 0.9) == 1


def test_corrupt_replaces_whole_views_and_leaves_the_rest(make_batch, make_denoiser):
    objective = CrossView(make_denoiser(), conditioning="released")
    batch = make_batch((8, 1, 4))
    tokens = torch.randn(13, 2, 3, 6, requires_grad=True)
    masking = objective.mask(tokens, batch.layout, generator())
    hidden = masking.hidden
    assert [int(hidden[batch.layout.scene == s].sum()) for s in range(3)] == [2, 0, 1]
    assert masking.tokens[~hidden].equal(tokens[~hidden])
    assert masking.tokens[hidden].eq(objective.mask_token).all()
    masking.tokens.sum().backward()
    assert objective.mask_token.grad.eq(3 * 6).all()
    assert tokens.grad[hidden].eq(0).all()
    assert tokens.grad[~hidden].eq(1).all()


def test_corrupt_is_drawn_from_the_generator_and_is_fair(make_batch, make_denoiser):
    objective, batch = CrossView(make_denoiser(), conditioning="released"), make_batch((8,))
    assert hide(objective, batch, seed=1).equal(hide(objective, batch, seed=1))
    share = sum(hide(objective, batch, seed=s).float() for s in range(800)) / 800
    assert (share - 0.25).abs().max() < 0.07


def test_corrupt_with_a_single_view_hides_nothing_but_stays_connected(make_batch, make_denoiser):
    objective, batch = CrossView(make_denoiser(), conditioning="released"), make_batch((1, 1))
    tokens = torch.randn(2, 2, 3, 6)
    masking = objective.mask(tokens, batch.layout, generator())
    assert not masking.hidden.any()
    assert masking.tokens.equal(tokens)
    masking.tokens.sum().backward()
    assert objective.mask_token.grad.eq(0).all()


# ---- who sees whom


def gradient_by_view(objective, batch, hidden, make_outputs) -> torch.Tensor:
    outputs = make_outputs(batch, hidden=hidden)
    objective.loss(outputs, batch, generator()).sum.backward()
    return outputs.visual.grad.abs().sum(dim=(1, 2, 3)) > 0


@pytest.mark.parametrize("conditioning", ["released", "pose"])
def test_released_and_pose_conditioning_read_visible_views_only(conditioning, make_batch, make_outputs, make_denoiser):
    objective, batch = CrossView(make_denoiser(), conditioning=conditioning), make_batch((5, 4))
    hidden = hide(objective, batch)
    assert gradient_by_view(objective, batch, hidden, make_outputs).equal(~hidden)


def test_masked_positions_conditioning_reads_hidden_views_only(make_batch, make_outputs, make_denoiser):
    objective = CrossView(make_denoiser(), conditioning="masked_positions")
    batch = make_batch((5, 4))
    hidden = hide(objective, batch)
    assert gradient_by_view(objective, batch, hidden, make_outputs).equal(hidden)


def test_masked_positions_gives_every_hidden_view_its_own_condition(make_batch, make_outputs, make_denoiser):
    objective = CrossView(make_denoiser(), conditioning="masked_positions", ratio=0.5, repeats=2)
    batch = make_batch((4,))
    hidden = hide(objective, batch)
    outputs = make_outputs(batch, hidden=hidden)
    base = objective.reconstruct(outputs, batch, generator=generator(), steps=2)
    visual = outputs.visual.detach().clone()
    visual[hidden.nonzero()[0]] *= -1
    moved = objective.reconstruct(SpatialOutputs(visual=visual, hidden=hidden), batch, generator=generator(), steps=2)
    assert not moved[0].allclose(base[0], atol=1e-3)
    torch.testing.assert_close(moved[1], base[1])


def test_birds_eye_reads_all_visible_views(make_batch, make_outputs, make_denoiser):
    batch = make_batch((5, 4))
    hidden = hide(CrossView(make_denoiser(), conditioning="released"), batch)
    assert gradient_by_view(BirdsEye(make_denoiser()), batch, hidden, make_outputs).equal(~hidden)


def test_vanilla_reads_the_chosen_views_and_prefers_visible_ones(make_batch, make_outputs, make_denoiser):
    batch = make_batch((4, 4))
    hidden = torch.tensor([True, False, False, True] * 2)
    objective = VanillaReconstruction(make_denoiser(), ratio=0.5)
    assert gradient_by_view(objective, batch, hidden, make_outputs).equal(~hidden)
    assert gradient_by_view(objective, batch, torch.zeros(8).bool(), make_outputs).sum() == 4


@pytest.mark.parametrize(("cls", "options"), ALL)
def test_other_scenes_tokens_and_latents_do_not_matter(cls, options, make_batch, make_outputs, make_denoiser):
    """The first scene's gradient is the same whatever the second scene's tokens are."""
    objective = cls(make_denoiser(dtype=torch.float64), **options)
    batch = make_batch((2, 5), dtype=torch.float64)
    hidden = hide(CrossView(make_denoiser(), conditioning="released"), batch)
    outputs = make_outputs(batch, hidden=hidden, dtype=torch.float64)
    first_gradients = []
    for change in (1.0, -3.0):
        visual = outputs.visual.detach().clone()
        visual[2:] *= change
        visual.requires_grad_()
        changed = SpatialOutputs(visual=visual, hidden=hidden)
        objective.loss(changed, batch, generator()).sum.backward()
        first_gradients.append(visual.grad[:2])
    assert first_gradients[0].abs().sum() > 0
    torch.testing.assert_close(first_gradients[0], first_gradients[1], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(("cls", "options"), ALL)
def test_ragged_scenes_equal_separate_batches(cls, options, make_batch, make_outputs, make_denoiser):
    objective = cls(make_denoiser(dtype=torch.float64), **options)
    batch = make_batch((2, 5), dtype=torch.float64)
    outputs = make_outputs(
        batch, hidden=hide(CrossView(make_denoiser(), conditioning="released"), batch), dtype=torch.float64
    )
    together = objective.loss(outputs, batch, generator(4))
    (grad_together,) = torch.autograd.grad(together.sum, outputs.visual)
    g, parts = generator(4), []
    for scene in range(2):
        parts.append(objective.loss(*reversed(one_scene(batch, outputs, scene)), g))
    assert together.sum.item() == pytest.approx(sum(p.sum.item() for p in parts), rel=1e-12)
    assert together.count == sum(p.count for p in parts)
    (grad_apart,) = torch.autograd.grad(sum(p.sum for p in parts), outputs.visual)
    torch.testing.assert_close(grad_together, grad_apart, atol=1e-12, rtol=1e-9)


def test_corrupt_of_ragged_scenes_equals_separate_batches(make_batch, make_outputs, make_denoiser):
    objective, batch = CrossView(make_denoiser(), conditioning="released"), make_batch((2, 5))
    outputs, g = make_outputs(batch), generator(5)
    apart = [hide_with(objective, one_scene(batch, outputs, s)[0], g) for s in range(2)]
    assert torch.cat(apart).equal(hide(objective, batch, seed=5))


def hide_with(objective, batch, g):
    return objective.mask(torch.zeros(len(batch.layout.scene), 2, 3, 6), batch.layout, g).hidden


@pytest.mark.parametrize("cls", [CrossView, BirdsEye])
def test_the_order_of_visible_views_does_not_matter(cls, make_batch, make_outputs, make_denoiser):
    objective = cls(make_denoiser(dtype=torch.float64))
    batch = make_batch((5,), dtype=torch.float64)
    hidden = torch.tensor([False, True, False, False, True])
    outputs = make_outputs(batch, hidden=hidden, dtype=torch.float64)
    order = torch.tensor([3, 1, 0, 2, 4])  # visible views change places
    shuffled = SpatialOutputs(visual=outputs.visual[order], hidden=hidden[order])
    targets = {k: v if k.startswith("birdseye") else v[order] for k, v in batch.targets.items()}
    a = objective.loss(outputs, batch, generator())
    b = objective.loss(shuffled, dataclasses.replace(batch, targets=targets), generator())
    assert a.sum.item() == pytest.approx(b.sum.item(), rel=1e-12)


@pytest.mark.parametrize("conditioning", ["released", "masked_positions", "pose"])
@pytest.mark.parametrize("diffusion", [CosineDiffusion(), RectifiedFlow()])
def test_the_loss_is_the_same_in_whatever_order_views_come(
    conditioning, diffusion, make_batch, make_outputs, make_denoiser, monkeypatch
):
    """All views, hidden ones too, change places; every target keeps its noise and timestep."""
    objective = CrossView(
        make_denoiser(dtype=torch.float64), conditioning=conditioning, ratio=0.5, repeats=1, diffusion=diffusion
    ).double()
    batch = make_batch((6,), dtype=torch.float64)
    hidden = torch.tensor([False, True, True, False, False, True])
    outputs = make_outputs(batch, hidden=hidden, dtype=torch.float64)
    order = torch.tensor([5, 3, 1, 0, 2, 4])
    t, noise = diffusion.draw(6, 4, 4, generator(8))
    values = []
    for places in (torch.arange(6), order):
        views = {key: getattr(batch, key)[places] for key in PER_VIEW}
        moved = dataclasses.replace(batch, **views, targets={"view_latents": batch.targets["view_latents"][places]})
        targets = places[hidden[places]]
        monkeypatch.setattr(diffusion, "draw", lambda *_, targets=targets: (t[targets], noise[targets]))
        shuffled = SpatialOutputs(visual=outputs.visual[places], hidden=hidden[places])
        values.append(objective.loss(shuffled, moved, generator()).sum.item())
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    monkeypatch.setattr(diffusion, "draw", lambda *_: (t[targets.flip(0)], noise[targets.flip(0)]))
    assert objective.loss(shuffled, moved, generator()).sum.item() != pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize(("cls", "options"), ALL)
def test_only_the_given_generator_is_used(cls, options, make_batch, make_outputs, make_denoiser):
    objective, batch = cls(make_denoiser(), **options), make_batch((4,))
    outputs = make_outputs(batch, hidden=hide(CrossView(make_denoiser(), conditioning="released"), batch))
    state = torch.get_rng_state()
    values = {seed: objective.loss(outputs, batch, generator(seed)).sum.item() for seed in (0, 1)}
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(99)
    assert objective.loss(outputs, batch, generator(0)).sum.item() == values[0] != values[1]


# ---- gradients and empty cases


@pytest.mark.parametrize(("cls", "options"), ALL)
def test_gradients_by_finite_differences(cls, options, make_batch, make_outputs, make_denoiser):
    objective = cls(make_denoiser(dtype=torch.float64), **options)
    batch = make_batch((2, 4), dtype=torch.float64)
    outputs = make_outputs(
        batch, hidden=hide(CrossView(make_denoiser(), conditioning="released"), batch), dtype=torch.float64
    )

    def loss(visual):
        return objective.loss(SpatialOutputs(visual=visual, hidden=outputs.hidden), batch, generator()).sum

    assert torch.autograd.gradcheck(loss, (outputs.visual,), fast_mode=True)


@pytest.mark.parametrize("case", ["single views", "all void"])
def test_zero_count_is_zero_and_connected_to_what_others_use(case, make_batch, make_outputs, make_denoiser):
    denoiser = make_denoiser()
    batch = make_batch((1, 1))
    objective: ReconstructionObjective = (
        CrossView(denoiser, conditioning="released") if case == "single views" else BirdsEye(denoiser)
    )
    batch.targets["birdseye_valid"][:] = False
    outputs = make_outputs(batch)
    outputs.visual.data[0, 0, 0, 0] = float("inf")
    loss = objective.loss(outputs, batch, generator())
    assert (loss.count, loss.sum.item()) == (0, 0)
    assert objective.count(batch) == 0
    loss.sum.backward()
    assert outputs.visual.grad is not None
    idle = {name: p.grad for name, p in [*objective.named_parameters(), *denoiser.named_parameters()]}
    assert all(grad is None or bool(grad.eq(0).all()) for grad in idle.values())
    # the same parameters as in a pass with targets: another process may have one
    for module in (objective, denoiser):
        module.zero_grad()
    batch = make_batch((4,))
    batch.targets["birdseye_valid"][:] = True
    full = make_outputs(batch, hidden=hide(objective, batch) if case == "single views" else None)
    objective.loss(full, batch, generator()).sum.backward()
    used = {name for name, p in [*objective.named_parameters(), *denoiser.named_parameters()] if p.grad is not None}
    assert used - {"mask_token"} == {name for name, grad in idle.items() if grad is not None} - {"mask_token"}
    assert used


def test_a_void_scene_beside_a_seen_one_adds_nothing(make_batch, make_outputs, make_denoiser):
    objective, batch = BirdsEye(make_denoiser()), make_batch((3, 3))
    batch.targets["birdseye_valid"][1] = False
    outputs = make_outputs(batch)
    both = objective.loss(outputs, batch, generator())
    single, single_outputs = one_scene(batch, outputs, 0)
    alone = objective.loss(single_outputs, single, generator())
    assert both.sum.item() == pytest.approx(alone.sum.item(), rel=1e-6)
    assert both.count == alone.count


def test_half_precision_latents_and_outputs_are_computed_in_float32(make_batch, make_outputs, make_denoiser):
    objective, batch = BirdsEye(make_denoiser()), make_batch((3,))
    outputs = make_outputs(batch)
    exact = objective.loss(outputs, batch, generator()).sum
    batch.targets["birdseye_latents"] = batch.targets["birdseye_latents"].half()
    rounded = SpatialOutputs(visual=outputs.visual.bfloat16(), hidden=outputs.hidden)
    got = objective.loss(rounded, batch, generator()).sum
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(exact.item(), rel=0.02)


# ---- ownership, pictures, errors


def test_the_denoiser_is_registered_once_by_its_owner(make_denoiser):
    denoiser = make_denoiser()
    members = {
        o.name: o
        for o in (VanillaReconstruction(denoiser), CrossView(denoiser, conditioning="released"), BirdsEye(denoiser))
    }
    assert {n for m in members.values() for n in m.state_dict()} == {"mask_token"}
    owner = ObjectiveSet(members, denoiser)
    names = [n for n, _ in owner.named_parameters(remove_duplicate=False)]
    assert len(names) == len(list(denoiser.parameters())) + 1
    owner.double()
    assert members["birds_eye"].denoiser.dtype == torch.float64


def test_pictures_have_one_entry_per_target(make_batch, make_outputs, make_denoiser):
    denoiser, batch = make_denoiser(), make_batch((4, 1, 8))
    cross = CrossView(denoiser, conditioning="released")
    outputs = make_outputs(batch, hidden=hide(cross, batch))
    shapes = {
        o.name: tuple(o.reconstruct(outputs, batch, generator=generator(), steps=2).shape)
        for o in (cross, VanillaReconstruction(denoiser), BirdsEye(denoiser))
    }
    assert shapes == {"cross_view": (3, 2, 2, 4), "vanilla": (13, 2, 2, 4), "birds_eye": (3, 3, 3, 4)}
    nothing = make_outputs(make_batch((1,)))
    assert cross.reconstruct(nothing, make_batch((1,)), generator=generator()).shape == (0, 2, 2, 4)


def test_training_makes_pictures_of_the_right_view(make_batch):
    """Tokens that name their view: after a short training each sample is nearest to its view's latents."""
    torch.manual_seed(0)
    denoiser = Denoiser(
        DenoiserConfig(condition_dim=6, channels=4, width=32, depth=1, heads=2, view_grid=(2, 2), birdseye_grid=None)
    )
    objective, batch = VanillaReconstruction(denoiser, ratio=1.0), make_batch((4,))
    visual = torch.randn(4, 1, 1, 6).expand(4, 2, 3, 6).contiguous()
    outputs = SpatialOutputs(visual=visual, hidden=torch.zeros(4, dtype=torch.bool))
    repeated = dataclasses.replace(
        batch,
        targets={"view_latents": batch.targets["view_latents"].repeat(8, 1, 1, 1)},
        layout=dataclasses.replace(
            batch.layout, index=batch.layout.index.repeat(8, 1, 1), scene=torch.zeros(32, dtype=torch.int64)
        ),
    )
    many = SpatialOutputs(visual=visual.repeat(8, 1, 1, 1), hidden=torch.zeros(32, dtype=torch.bool))
    optimiser, g, losses = torch.optim.Adam(denoiser.parameters(), lr=3e-3), generator(), []
    for _ in range(250):
        loss = objective.loss(many, repeated, g)
        optimiser.zero_grad()
        (loss.sum / loss.count).backward()
        optimiser.step()
        losses.append(loss.sum.item() / loss.count)
    assert losses[0] == pytest.approx(1, abs=0.2)
    assert sum(losses[-20:]) / 20 < 0.5
    pictures = objective.reconstruct(outputs, batch, generator=g, steps=25).flatten(1)
    distances = torch.cdist(pictures, batch.targets["view_latents"].flatten(1))
    assert distances.argmin(dim=1).tolist() == [0, 1, 2, 3]


def test_unknown_conditioning_lists_the_known_ones(make_denoiser):
    with pytest.raises(ValueError, match="'poses'; known: released, masked_positions, pose"):
        CrossView(make_denoiser(), conditioning="poses")


def test_wrong_options_are_refused(make_denoiser):
    denoiser = make_denoiser()
    for build in (
        lambda: CrossView(denoiser, ratio=1.0, conditioning="released"),
        lambda: CrossView(denoiser, repeats=0, conditioning="released"),
        lambda: VanillaReconstruction(denoiser, ratio=0.0),
        lambda: BirdsEye(denoiser, repeats=0),
        lambda: BirdsEye(denoiser, every=0),
    ):
        with pytest.raises(ValueError, match=r"objective '\w+': (ratio|repeats|every) must"):
            build()
    with pytest.raises(ValueError, match="without a bird's-eye part"):
        BirdsEye(make_denoiser(birdseye=False))


def test_latents_of_another_grid_are_refused(make_batch, make_outputs, make_denoiser):
    batch = make_batch((2,))
    batch.targets["view_latents"] = torch.zeros(2, 3, 2, 4)
    with pytest.raises(ValueError, match=r"\(2, 3, 2, 4\), but the denoiser was built for \(2, 2, 4\)"):
        VanillaReconstruction(make_denoiser()).loss(make_outputs(batch), batch, generator())


def test_validity_of_another_grid_is_refused(make_batch, make_outputs, make_denoiser):
    batch = make_batch((2,))
    batch.targets["birdseye_valid"] = torch.ones(1, 6, 6, dtype=torch.bool)
    with pytest.raises(ValueError, match="validity must be given per latent cell"):
        BirdsEye(make_denoiser()).loss(make_outputs(batch), batch, generator())


def test_forgetting_to_hide_is_noticed(make_batch, make_outputs, make_denoiser):
    batch = make_batch((4,))
    with pytest.raises(ValueError, match="'scene0' has 0 of 4 views hidden, expected 1; apply"):
        CrossView(make_denoiser(), conditioning="released").loss(make_outputs(batch), batch, generator())


def test_tokens_of_another_width_are_refused(make_batch, make_denoiser):
    with pytest.raises(ValueError, match="9 features, its mask token 6; set dim"):
        CrossView(make_denoiser(), conditioning="released").mask(
            torch.zeros(2, 2, 3, 9), make_batch((2,)).layout, generator()
        )
    wide = CrossView(make_denoiser(), dim=9, conditioning="released")
    assert wide.mask(torch.zeros(2, 2, 3, 9), make_batch((2,)).layout, generator()).hidden.sum() == 1
