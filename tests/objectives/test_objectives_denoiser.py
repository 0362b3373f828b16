import math

import pytest
import torch

from stereopsis.objectives.denoiser_network import Denoiser, DenoiserConfig, sincos_grid, timestep_sinusoid

WIDTH, DIM, CHANNELS, DEPTH = 16, 10, 6, 2
CONFIG = DenoiserConfig(
    condition_dim=DIM,
    channels=CHANNELS,
    width=WIDTH,
    depth=DEPTH,
    heads=4,
    view_grid=(2, 3),
    birdseye_grid=(3, 3),
)


def released_shapes() -> dict[str, tuple[int, ...]]:
    """Every key of the released `model.mm_inv_projector.net`, at this width."""
    shapes: dict[str, tuple[int, ...]] = {}
    for kind, cells in (("view", 6), ("bev", 9)):
        shapes |= {
            f"x_embedder_{kind}.proj.weight": (WIDTH, CHANNELS, 1, 1),
            f"x_embedder_{kind}.proj.bias": (WIDTH,),
            f"pos_embed_{kind}": (1, cells, WIDTH),
            f"z_embedder_{kind}.cls_token": (1, cells, WIDTH),
            f"z_embedder_{kind}.proj.1.weight": (WIDTH, DIM),
            f"z_embedder_{kind}.proj.1.bias": (WIDTH,),
            f"z_embedder_{kind}.k.weight": (WIDTH, WIDTH),
            f"z_embedder_{kind}.v.weight": (WIDTH, WIDTH),
            f"z_embedder_{kind}.linear.weight": (WIDTH, WIDTH),
        }
    linears = {"t_embedder.mlp.0": (WIDTH, 256), "t_embedder.mlp.2": (WIDTH, WIDTH)}
    for i in range(DEPTH):
        linears |= {
            f"blocks.{i}.attn.qkv": (3 * WIDTH, WIDTH),
            f"blocks.{i}.attn.proj": (WIDTH, WIDTH),
            f"blocks.{i}.mlp.fc1": (4 * WIDTH, WIDTH),
            f"blocks.{i}.mlp.fc2": (WIDTH, 4 * WIDTH),
            f"blocks.{i}.adaLN_modulation.1": (6 * WIDTH, WIDTH),
        }
    linears |= {"final_layer.linear": (CHANNELS, WIDTH), "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH)}
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def random_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in released_shapes().items()
    }


def loaded(dtype: torch.dtype = torch.float64) -> tuple[Denoiser, dict[str, torch.Tensor]]:
    weights = random_weights()
    denoiser = Denoiser(CONFIG).to(dtype)
    denoiser.load_state_dict(weights, strict=True)
    return denoiser, weights


# An independent forward pass: one target, one cell, one head at a time, from the released names alone.


def linear(w, name, x):
    y = w[f"{name}.weight"].reshape(-1, len(x)) @ x
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def silu(x):
    return x / (1 + (-x).exp())


def norm(x, eps):
    return (x - x.mean()) / (((x - x.mean()) ** 2).mean() + eps).sqrt()


def attend(queries, keys, values, heads=4):
    size = WIDTH // heads
    out = torch.zeros_like(queries)
    for i, query in enumerate(queries):
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = torch.stack([query[part] @ key[part] for key in keys]) / math.sqrt(size)
            share = scores.exp() / scores.exp().sum()
            out[i, part] = sum(s * value[part] for s, value in zip(share, values, strict=True))
    return out


def reference_condition(w, kind, tokens):
    x = [linear(w, f"z_embedder_{kind}.proj.1", silu(norm(token, 1e-5))) for token in tokens]
    keys = [linear(w, f"z_embedder_{kind}.k", y) for y in x]
    values = [linear(w, f"z_embedder_{kind}.v", y) for y in x]
    pooled = attend(w[f"z_embedder_{kind}.cls_token"][0], keys, values)
    return torch.stack([linear(w, f"z_embedder_{kind}.linear", y) for y in pooled])


def reference_noise(w, kind, noisy, t, z):
    angles = [t * math.exp(-math.log(10000) * i / 128) for i in range(128)]
    wave = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles], dtype=torch.float64)
    c = linear(w, "t_embedder.mlp.2", silu(linear(w, "t_embedder.mlp.0", wave))) + z
    x = torch.stack([linear(w, f"x_embedder_{kind}.proj", cell) for cell in noisy]) + w[f"pos_embed_{kind}"][0]
    for i in range(DEPTH):
        m = torch.stack([linear(w, f"blocks.{i}.adaLN_modulation.1", silu(y)) for y in c])
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = m.reshape(len(m), 6, WIDTH).transpose(0, 1)
        y = torch.stack([norm(v, 1e-6) for v in x]) * (1 + scale_a) + shift_a
        qkv = torch.stack([linear(w, f"blocks.{i}.attn.qkv", v) for v in y])
        mixed = attend(qkv[:, :WIDTH], qkv[:, WIDTH : 2 * WIDTH], qkv[:, 2 * WIDTH :])
        x = x + gate_a * torch.stack([linear(w, f"blocks.{i}.attn.proj", v) for v in mixed])
        y = torch.stack([norm(v, 1e-6) for v in x]) * (1 + scale_m) + shift_m
        h = torch.stack([linear(w, f"blocks.{i}.mlp.fc1", v) for v in y])
        h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        x = x + gate_m * torch.stack([linear(w, f"blocks.{i}.mlp.fc2", v) for v in h])
    m = torch.stack([linear(w, "final_layer.adaLN_modulation.1", silu(y)) for y in c])
    y = torch.stack([norm(v, 1e-6) for v in x]) * (1 + m[:, WIDTH:]) + m[:, :WIDTH]
    return torch.stack([linear(w, "final_layer.linear", v) for v in y])


@pytest.mark.parametrize(("kind", "released", "cells"), [("view", "view", 6), ("birdseye", "bev", 9)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-4)])
def test_forward_equals_an_independent_float64_pass(kind, released, cells, dtype, tolerance):
    denoiser, w = loaded(dtype)
    torch.manual_seed(1)
    tokens = torch.randn(2, 7, DIM, dtype=torch.float64)
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[1, 3:] = False
    noisy, t = torch.randn(3, cells, CHANNELS, dtype=torch.float64), torch.tensor([0, 417, 999])
    owner = torch.tensor([0, 1, 1])
    z = denoiser.condition(tokens.to(dtype), valid, kind)
    got = denoiser(noisy.to(dtype), t, z[owner], kind)
    assert got.dtype == dtype
    expected_z = [reference_condition(w, released, tokens[i][valid[i]]) for i in range(2)]
    torch.testing.assert_close(z.double(), torch.stack(expected_z), atol=tolerance, rtol=0)
    for i in range(3):
        expected = reference_noise(w, released, noisy[i], int(t[i]), expected_z[int(owner[i])])
        assert expected.abs().mean() > 0.1
        torch.testing.assert_close(got[i].double(), expected, atol=tolerance, rtol=0)


def test_state_dict_has_exactly_the_released_keys_and_shapes():
    state = Denoiser(CONFIG).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == released_shapes()
    with pytest.raises(RuntimeError, match=r"x_embedder_view\.proj\.weight"):
        Denoiser(CONFIG).load_state_dict(
            {k: v for k, v in random_weights().items() if "x_embedder_view" not in k}, strict=True
        )


def test_the_default_size_is_the_released_one():
    with torch.device("meta"):
        denoiser = Denoiser(DenoiserConfig(condition_dim=3584, channels=64, width=1024, depth=3, heads=16))
    state = denoiser.state_dict()
    assert state["z_embedder_view.proj.1.weight"].shape == (1024, 3584)
    assert state["pos_embed_bev"].shape == (1, 729, 1024)
    assert state["pos_embed_view"].shape == (1, 196, 1024)
    assert "blocks.2.attn.qkv.weight" in state
    assert "blocks.3.attn.qkv.weight" not in state


def test_positions_are_fixed_and_follow_the_formula():
    table = sincos_grid((2, 3), 8)[0]
    # cell (row 1, column 2): frequencies 1 and 1/100; column first: sines, cosines, then the row's
    expected = [
        *(math.sin(2.0), math.sin(0.02), math.cos(2.0), math.cos(0.02)),
        *(math.sin(1.0), math.sin(0.01), math.cos(1.0), math.cos(0.01)),
    ]
    torch.testing.assert_close(table[1 * 3 + 2], torch.tensor(expected))
    assert not any("pos_embed" in name for name, _ in Denoiser(CONFIG).named_parameters())


def test_timestep_sinusoid_hand_values():
    wave = timestep_sinusoid(torch.tensor([0, 3]), torch.float64)
    assert wave[0, :128].eq(1).all()
    assert wave[0, 128:].eq(0).all()
    assert wave[1, 0].item() == pytest.approx(math.cos(3))
    assert wave[1, 128 + 64].item() == pytest.approx(math.sin(3 / 100))


def test_starts_at_zero_noise_whatever_the_input():
    denoiser = Denoiser(CONFIG)
    z = denoiser.condition(torch.randn(2, 5, DIM), torch.ones(2, 5, dtype=torch.bool))
    assert z.abs().sum() > 0
    assert denoiser(torch.randn(2, 6, CHANNELS), torch.tensor([3, 900]), z).eq(0).all()


def test_blocks_start_as_identity():
    denoiser = Denoiser(CONFIG)
    x, c = torch.randn(1, 6, WIDTH), torch.randn(1, 6, WIDTH)
    assert denoiser.blocks[0](x, c).equal(x)


def test_padding_does_not_reach_the_condition_even_if_it_is_nan():
    denoiser, _ = loaded()
    tokens = torch.randn(1, 4, DIM, dtype=torch.float64)
    alone = denoiser.condition(tokens, torch.ones(1, 4, dtype=torch.bool))
    padded = torch.cat([tokens, torch.full((1, 3, DIM), float("nan"), dtype=torch.float64)], dim=1)
    valid = torch.tensor([[True] * 4 + [False] * 3])
    torch.testing.assert_close(denoiser.condition(padded, valid), alone, atol=1e-12, rtol=0)


def test_condition_ignores_the_order_of_tokens():
    denoiser, _ = loaded()
    tokens = torch.randn(1, 9, DIM, dtype=torch.float64)
    valid = torch.ones(1, 9, dtype=torch.bool)
    shuffled = denoiser.condition(tokens[:, torch.randperm(9)], valid)
    torch.testing.assert_close(shuffled, denoiser.condition(tokens, valid), atol=1e-12, rtol=0)


def test_a_row_without_tokens_gives_zeros_and_finite_gradients():
    denoiser, _ = loaded()
    tokens = torch.randn(2, 5, DIM, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[False] * 5, [True] * 5])
    z = denoiser.condition(tokens, valid)
    assert z[0].eq(0).all()
    z.square().sum().backward()
    assert tokens.grad[0].eq(0).all()
    assert tokens.grad[1].abs().sum() > 0
    pooler = denoiser.z_embedder_view
    for parameter in pooler.parameters():
        assert parameter.grad.isfinite().all()
    both = [p.grad.clone() for p in pooler.parameters()]
    pooler.zero_grad()
    denoiser.condition(tokens[1:], valid[1:]).square().sum().backward()
    for a, b in zip(both, pooler.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["view", "birdseye"])
def test_gradients_by_finite_differences(kind):
    denoiser, _ = loaded()
    cells = math.prod(denoiser.grid(kind))
    tokens = torch.randn(2, 4, DIM, dtype=torch.float64, requires_grad=True)
    noisy = torch.randn(2, cells, CHANNELS, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[True, True, True, False], [True, False, False, False]])

    def predict(tokens, noisy):
        return denoiser(noisy, torch.tensor([5, 700]), denoiser.condition(tokens, valid, kind), kind)

    assert torch.autograd.gradcheck(predict, (tokens, noisy), fast_mode=True)


def test_float32_is_kept_under_autocast_and_autocast_is_an_option():
    denoiser, _ = loaded(torch.float32)
    loose = Denoiser(DenoiserConfig(**{**vars(CONFIG), "compute_dtype": "autocast"}))
    loose.load_state_dict(denoiser.state_dict())
    tokens, noisy = torch.randn(1, 4, DIM), torch.randn(1, 6, CHANNELS)
    valid, t = torch.ones(1, 4, dtype=torch.bool), torch.tensor([10])
    exact = denoiser(noisy, t, denoiser.condition(tokens, valid))
    with torch.autocast("cpu", torch.bfloat16):
        kept = denoiser(noisy, t, denoiser.condition(tokens, valid))
        rounded = loose(noisy, t, loose.condition(tokens, valid))
    assert kept.equal(exact)
    assert 0 < (rounded.float() - exact).abs().max() < 0.3


def test_half_precision_parameters_are_refused_unless_autocast_is_asked_for():
    denoiser = Denoiser(CONFIG).to(torch.bfloat16)
    with pytest.raises(ValueError, match="compute_dtype to 'autocast'"):
        denoiser.condition(torch.randn(1, 4, DIM), torch.ones(1, 4, dtype=torch.bool))


def test_birdseye_parts_exist_only_if_asked():
    denoiser = Denoiser(DenoiserConfig(**{**vars(CONFIG), "birdseye_grid": None}))
    assert not any("bev" in name for name in denoiser.state_dict())
    with pytest.raises(ValueError, match="birdseye_grid"):
        denoiser.condition(torch.randn(1, 4, DIM), torch.ones(1, 4, dtype=torch.bool), "birdseye")


def test_wrong_sizes_are_named():
    denoiser = Denoiser(CONFIG)
    with pytest.raises(ValueError, match="5 cells x 6 channels, but was built for 6 x 6"):
        denoiser(torch.zeros(1, 5, CHANNELS), torch.tensor([0]), torch.zeros(1, 5, WIDTH))
    with pytest.raises(ValueError, match="width 18"):
        DenoiserConfig(condition_dim=4, channels=4, width=18, depth=1, heads=4)
    with pytest.raises(ValueError, match="'fp16'"):
        DenoiserConfig(condition_dim=4, channels=4, width=16, depth=1, heads=4, compute_dtype="fp16")
