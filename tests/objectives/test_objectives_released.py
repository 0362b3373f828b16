"""Released weights: every key accounted for, and outputs and losses those of an independent float64 reading."""

import math

import pytest
import torch
from safetensors.torch import save_file

from stereopsis.errors import CheckpointError
from stereopsis.objectives import (
    BirdsEye,
    CosineDiffusion,
    CrossView,
    Denoiser,
    DenoiserConfig,
    load_released_denoiser,
    released_forward,
    released_state_dict,
)
from stereopsis.objectives.released import initialise_denoiser

WIDTH, DIM, CHANNELS, DEPTH, HEADS = 32, 6, 4, 2, 16
SIDES = {"view": 2, "bev": 3}


def released_weights(*, seed: int = 0, depth: int = DEPTH, prefix: str = "net.") -> dict[str, torch.Tensor]:
    """Random weights under the released names; the modulations are not zero, so that every block has a say."""
    shapes: dict[str, tuple[int, ...]] = {}
    for kind, side in SIDES.items():
        shapes |= {
            f"x_embedder_{kind}.proj.weight": (WIDTH, CHANNELS, 1, 1),
            f"x_embedder_{kind}.proj.bias": (WIDTH,),
            f"pos_embed_{kind}": (1, side**2, WIDTH),
            f"z_embedder_{kind}.cls_token": (1, side**2, WIDTH),
            f"z_embedder_{kind}.proj.1.weight": (WIDTH, DIM),
            f"z_embedder_{kind}.proj.1.bias": (WIDTH,),
        } | {f"z_embedder_{kind}.{name}.weight": (WIDTH, WIDTH) for name in ("k", "v", "linear")}
    shapes |= shared_shapes(depth)
    return {prefix + name: tensor for name, tensor in drawn(shapes, seed).items()}


def shared_shapes(depth: int) -> dict[str, tuple[int, ...]]:
    linears = {"t_embedder.mlp.0": (WIDTH, 256), "t_embedder.mlp.2": (WIDTH, WIDTH)}
    for i in range(depth):
        linears |= {
            f"blocks.{i}.attn.qkv": (3 * WIDTH, WIDTH),
            f"blocks.{i}.attn.proj": (WIDTH, WIDTH),
            f"blocks.{i}.mlp.fc1": (4 * WIDTH, WIDTH),
            f"blocks.{i}.mlp.fc2": (WIDTH, 4 * WIDTH),
            f"blocks.{i}.adaLN_modulation.1": (6 * WIDTH, WIDTH),
        }
    linears |= {"final_layer.linear": (CHANNELS, WIDTH), "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH)}
    return {
        f"{name}.{part}": shape if part == "weight" else shape[:1]
        for name, shape in linears.items()
        for part in ("weight", "bias")
    }


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


# ---- the released forward pass, read independently: one cell, one head, one token at a time


def affine(w, name, x):
    out = torch.stack([row.dot(x) for row in w[f"net.{name}.weight"].flatten(1)])
    return out + w[f"net.{name}.bias"] if f"net.{name}.bias" in w else out


def silu(x):
    return x * torch.sigmoid(x)


def standardised(x, eps):
    centred = x - x.mean()
    return centred / torch.sqrt(centred.pow(2).mean() + eps)


def look_up(queries, keys, values):
    rows, size = [], WIDTH // HEADS
    for q in queries:
        heads = []
        for h in range(HEADS):
            s = slice(h * size, (h + 1) * size)
            scores = torch.stack([q[s].dot(k[s]) for k in keys]) / math.sqrt(size)
            heads.append(sum(a * v[s] for a, v in zip(torch.softmax(scores, 0), values, strict=True)))
        rows.append(torch.cat(heads))
    return rows


def released_condition(w, kind, hidden_states):
    """Hidden states [tokens dim] of all visible views -> one vector per cell."""
    x = [affine(w, f"z_embedder_{kind}.proj.1", silu(standardised(h, 1e-5))) for h in hidden_states]
    keys = [affine(w, f"z_embedder_{kind}.k", y) for y in x]
    values = [affine(w, f"z_embedder_{kind}.v", y) for y in x]
    pooled = look_up(w[f"net.z_embedder_{kind}.cls_token"][0], keys, values)
    return [affine(w, f"z_embedder_{kind}.linear", y) for y in pooled]


def released_noise(w, kind, noisy, t, z):
    """Noisy cells [cells channels] of one target -> the predicted noise."""
    angles = torch.tensor([t * 10000 ** (-i / 128) for i in range(128)], dtype=torch.float64)
    wave = torch.cat([angles.cos(), angles.sin()])
    time = affine(w, "t_embedder.mlp.2", silu(affine(w, "t_embedder.mlp.0", wave)))
    c = [time + cell for cell in z]
    positions = w[f"net.pos_embed_{kind}"][0]
    x = [affine(w, f"x_embedder_{kind}.proj", cell) + p for cell, p in zip(noisy, positions, strict=True)]
    for i in range(DEPTH):
        m = [affine(w, f"blocks.{i}.adaLN_modulation.1", silu(cell)).split(WIDTH) for cell in c]
        y = [standardised(a, 1e-6) * (1 + n[1]) + n[0] for a, n in zip(x, m, strict=True)]
        qkv = [affine(w, f"blocks.{i}.attn.qkv", cell).split(WIDTH) for cell in y]
        seen = look_up(*([part[j] for part in qkv] for j in range(3)))
        x = [a + n[2] * affine(w, f"blocks.{i}.attn.proj", b) for a, b, n in zip(x, seen, m, strict=True)]
        y = [standardised(a, 1e-6) * (1 + n[4]) + n[3] for a, n in zip(x, m, strict=True)]
        h = [affine(w, f"blocks.{i}.mlp.fc1", cell) for cell in y]
        h = [a / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))) for a in h]
        x = [a + n[5] * affine(w, f"blocks.{i}.mlp.fc2", b) for a, b, n in zip(x, h, m, strict=True)]
    out = []
    for a, cell in zip(x, c, strict=True):
        shift, scale = affine(w, "final_layer.adaLN_modulation.1", silu(cell)).split(WIDTH)
        out.append(affine(w, "final_layer.linear", standardised(a, 1e-6) * (1 + scale) + shift))
    return torch.stack(out)


def cosine_alpha(t: int) -> float:
    """Share of the signal's variance left at step t, from the definition of the cosine schedule."""
    f = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(t + 2)]
    return math.prod(1 - min(1 - f[i + 1] / f[i], 0.999) for i in range(t + 1))


@pytest.fixture(scope="module")
def released():
    weights = released_weights() | {"model.mask_token": torch.arange(6, dtype=torch.float64)}
    return weights, load_released_denoiser(weights)


@pytest.mark.parametrize(("kind", "ours"), [("view", "view"), ("bev", "birdseye")])
def test_outputs_equal_the_released_forward(released, kind, ours):
    weights, loaded = released
    side = SIDES[kind]
    g = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, DIM, 2, 2, generator=g, dtype=torch.float64)  # 3 visible views of 2x2 tokens
    noisy = torch.randn(2, CHANNELS, side, side, generator=g, dtype=torch.float64)
    t = torch.tensor([7, 812])
    tokens = hidden.permute(0, 2, 3, 1).reshape(-1, DIM)
    z = released_condition(weights, kind, tokens)
    expected = torch.stack(
        [
            released_noise(weights, kind, x.permute(1, 2, 0).reshape(-1, CHANNELS), int(step), z)
            for x, step in zip(noisy, t, strict=True)
        ]
    )
    assert expected.abs().mean() > 0.1
    normalised = torch.nn.functional.layer_norm(hidden.permute(0, 2, 3, 1), (DIM,)).permute(0, 3, 1, 2)
    official = released_forward(loaded.denoiser, noisy, t, normalised, bev=kind == "bev")
    torch.testing.assert_close(official.flatten(2).transpose(1, 2), expected, atol=1e-6, rtol=0)
    condition = loaded.denoiser.condition(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool), ours)
    torch.testing.assert_close(condition[0], torch.stack(z), atol=1e-6, rtol=0)


def test_losses_equal_the_released_losses(released, make_batch, make_outputs):
    """Hidden views from the visible ones, each V // hidden times; bird's-eye as sum(loss * mask) / sum(mask)."""
    weights, loaded = released
    batch = make_batch((4,), dtype=torch.float64)
    hidden = torch.tensor([False, True, False, False])
    outputs = make_outputs(batch, hidden=hidden, dtype=torch.float64)
    visible = outputs.visual.detach()[~hidden].reshape(-1, DIM)
    for objective, kind, latents, repeats in (
        (CrossView(loaded.denoiser, conditioning="released"), "view", batch.targets["view_latents"][1], 4),
        (BirdsEye(loaded.denoiser), "bev", batch.targets["birdseye_latents"][0], 1),
    ):
        g = torch.Generator().manual_seed(11)
        t = torch.randint(1000, (repeats,), generator=g)
        noise = torch.randn(repeats, SIDES[kind] ** 2, CHANNELS, generator=g).double()
        z, squares = released_condition(weights, kind, visible), []
        for step, eps in zip(t.tolist(), noise, strict=True):
            alpha = cosine_alpha(step)
            noisy = math.sqrt(alpha) * latents.reshape(-1, CHANNELS) + math.sqrt(1 - alpha) * eps
            squares.append((released_noise(weights, kind, noisy, step, z) - eps).square())
        squares = torch.stack(squares)
        mask = torch.ones_like(squares)
        if kind == "bev":
            mask = batch.targets["birdseye_valid"].flatten()[None, :, None].expand_as(squares).double()
            assert 0 < mask.mean() < 1
        expected = (squares * mask).sum() / mask.sum()
        loss = objective.loss(outputs, batch, torch.Generator().manual_seed(11))
        assert float(loss.sum.detach()) / loss.count == pytest.approx(float(expected), abs=1e-6)


# ---- files and keys


@pytest.mark.parametrize("prefix", ["model.mm_inv_projector.net.", "mm_inv_projector.net.", "net.", ""])
def test_sizes_are_read_off_the_tensors_under_any_prefix(prefix):
    weights = released_weights(prefix=prefix, depth=3)
    loaded = load_released_denoiser(weights)
    config = loaded.denoiser.config
    assert (config.width, config.depth, config.channels, config.condition_dim) == (WIDTH, 3, CHANNELS, DIM)
    assert (config.view_grid, config.birdseye_grid, config.heads) == ((2, 2), (3, 3), 16)
    assert loaded.mask_token is None
    state = loaded.denoiser.state_dict()
    assert {prefix + key for key in state} == set(weights)
    assert all(state[key.removeprefix(prefix)].equal(value) for key, value in weights.items())


def test_writing_gives_back_what_was_read(released):
    weights, loaded = released
    again = released_state_dict(loaded.denoiser, loaded.mask_token, prefix="net.")
    assert again.keys() == weights.keys()
    assert all(again[key].equal(value) for key, value in weights.items())
    assert load_released_denoiser(released_state_dict(loaded.denoiser)).denoiser.config == loaded.denoiser.config


def test_half_precision_weights_are_opened_in_float32():
    weights = {key: value.bfloat16() for key, value in released_weights().items()}
    loaded = load_released_denoiser(weights)
    assert loaded.denoiser.dtype == torch.float32
    assert loaded.denoiser.pos_embed_view.dtype == torch.float32
    assert load_released_denoiser(weights, dtype=torch.float64).denoiser.dtype == torch.float64


def test_changing_the_loaded_denoiser_leaves_the_source_alone():
    weights = released_weights()
    before = weights["net.blocks.0.attn.proj.bias"].clone()
    load_released_denoiser(weights).denoiser.blocks[0].attn.proj.bias.data.zero_()
    assert weights["net.blocks.0.attn.proj.bias"].equal(before)


def test_every_key_is_accounted_for():
    weights = released_weights(prefix="model.mm_inv_projector.net.")
    rest = {"model.layers.0.mlp.up_proj.weight": torch.zeros(1), "ground_head_zero_target": torch.zeros(1)}
    frozen = {"model.mm_pixel_decoder.encoder.conv_in.weight": torch.zeros(1)}
    loaded = load_released_denoiser(weights | rest | frozen)
    assert set(loaded.passed_over) == set(rest)
    with pytest.raises(CheckpointError, match=r"1 keys belong to no part of a released model: model\.novelty"):
        load_released_denoiser(weights | {"model.novelty": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"0 keys missing: none; 1 unknown: blocks\.0\.attn\.q_norm"):
        load_released_denoiser(weights | {"model.mm_inv_projector.net.blocks.0.attn.q_norm": torch.zeros(1)})
    lacking = {key: value for key, value in weights.items() if not key.endswith("attn.proj.bias")}
    with pytest.raises(CheckpointError, match=r"2 keys missing: blocks\.0\.attn\.proj\.bias, blocks\.1\.attn"):
        load_released_denoiser(lacking)
    wide = weights | {"model.mm_inv_projector.net.final_layer.linear.weight": torch.zeros(2 * CHANNELS, WIDTH)}
    with pytest.raises(CheckpointError, match=r"final_layer\.linear\.weight is \(8, 32\), expected \(4, 32\)"):
        load_released_denoiser(wide)
    with pytest.raises(CheckpointError, match="no key of a released denoiser was found"):
        load_released_denoiser(frozen)
    with pytest.raises(CheckpointError, match=r"it lacks 'z_embedder_view\.proj\.1\.weight'"):
        load_released_denoiser({k: v for k, v in weights.items() if "proj.1" not in k})


def test_grids_that_are_not_square_are_named_by_the_caller():
    weights = released_weights()
    weights["net.pos_embed_view"] = torch.zeros(1, 6, WIDTH)
    weights["net.z_embedder_view.cls_token"] = torch.zeros(1, 6, WIDTH)
    with pytest.raises(CheckpointError, match="6 cells are no square grid; name rows and columns with view_grid="):
        load_released_denoiser(weights)
    assert load_released_denoiser(weights, view_grid=(2, 3)).denoiser.config.view_grid == (2, 3)


def test_weights_are_read_from_files_of_every_kind(tmp_path):
    weights = {k: v.float() for k, v in released_weights(prefix="model.mm_inv_projector.net.").items()}
    weights |= {"model.mask_token": torch.ones(DIM), "lm_head.weight": torch.zeros(2)}
    save_file(weights, tmp_path / "whole.safetensors")
    torch.save(weights, tmp_path / "whole.bin")
    halves = [dict(sorted(weights.items())[i::2]) for i in range(2)]
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, half in enumerate(halves):
        save_file(half, folder / f"model-{number}.safetensors")
    index = {key: f"model-{number}.safetensors" for number, half in enumerate(halves) for key in half}
    write_index(folder, index)
    for source in (tmp_path / "whole.safetensors", str(tmp_path / "whole.bin"), folder):
        loaded = load_released_denoiser(source)
        assert loaded.passed_over == ("lm_head.weight",)
        assert loaded.mask_token.equal(torch.ones(DIM))
        name = "blocks.1.mlp.fc2.weight"
        assert loaded.denoiser.state_dict()[name].equal(weights[f"model.mm_inv_projector.net.{name}"])
    write_index(folder, index | {"model.mask_token": "../whole.safetensors"})
    with pytest.raises(CheckpointError, match="outside its folder"):
        load_released_denoiser(folder)
    save_file({"lm_head.weight": torch.zeros(2)}, folder / "model-0.safetensors")
    write_index(folder, index)
    with pytest.raises(CheckpointError, match=r"model-0\.safetensors and its index disagree"):
        load_released_denoiser(folder)


def write_index(folder, weight_map):
    import json

    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


def test_bad_files_are_errors_for_people_and_nothing_is_executed(tmp_path, capsys):
    torch.save({"net.x": Bomb()}, tmp_path / "bomb.bin")
    with pytest.raises(CheckpointError, match="opening them runs code"):
        load_released_denoiser(tmp_path / "bomb.bin")
    assert "executed" not in capsys.readouterr().out
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"\x08")
    (tmp_path / "x.index.json").write_text("{}")
    (tmp_path / "weights.gguf").write_text("")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("other.pt", "something else than named tensors"),
        ("torn.safetensors", "cannot be read as safetensors"),
        ("x.index.json", "no 'weight_map'"),
        ("weights.gguf", "unknown kind of file"),
        ("empty", "holds no weights"),
        ("absent.bin", "no such file"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_released_denoiser(tmp_path / name)


# ---- starting from released weights


def two_dimensional(*, pooled: bool, side: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    """Ross's denoiser: one of everything, and (`pooled`) a condition pooler or (released) one linear layer."""
    shapes = shared_shapes(DEPTH) | {
        "x_embedder.proj.weight": (WIDTH, CHANNELS, 1, 1),
        "x_embedder.proj.bias": (WIDTH,),
        "pos_embed": (1, side**2, WIDTH),
    }
    linear = "z_embedder.proj.1" if pooled else "z_embedder.1"
    shapes |= {f"{linear}.weight": (WIDTH, DIM), f"{linear}.bias": (WIDTH,)}
    if pooled:
        shapes |= {f"z_embedder.{name}.weight": (WIDTH, WIDTH) for name in ("k", "v", "linear")}
        shapes |= {"z_embedder.cls_token": (1, side**2, WIDTH)}
    return {f"model.mm_inv_projector.net.{name}": value.float() for name, value in drawn(shapes, seed).items()}


def fresh(**changes) -> Denoiser:
    torch.manual_seed(2)
    sizes = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "view_grid": (2, 2), "birdseye_grid": (3, 3)}
    return Denoiser(DenoiserConfig(condition_dim=DIM, channels=CHANNELS, **(sizes | changes)))


@pytest.mark.parametrize("pooled", [True, False])
def test_a_two_dimensional_denoiser_fills_both_kinds(pooled):
    source = {k.removeprefix("model.mm_inv_projector.net."): v for k, v in two_dimensional(pooled=pooled).items()}
    denoiser, before = fresh(), fresh().state_dict()
    assert initialise_denoiser(denoiser, two_dimensional(pooled=pooled)) is None
    state = denoiser.state_dict()
    for kind in ("view", "bev"):
        assert state[f"x_embedder_{kind}.proj.weight"].equal(source["x_embedder.proj.weight"])
        assert state[f"z_embedder_{kind}.proj.1.bias"].equal(source[f"z_embedder.{'proj.' if pooled else ''}1.bias"])
        for name in ("k.weight", "v.weight", "linear.weight"):
            wanted = source[f"z_embedder.{name}"] if pooled else before[f"z_embedder_{kind}.{name}"]
            assert state[f"z_embedder_{kind}.{name}"].equal(wanted)
    for name in shared_shapes(DEPTH):
        assert state[name].equal(source[name])
    # 4x4 -> 2x2, bilinear without antialiasing: each new cell is the mean of the 2x2 old ones around its centre
    old = source["pos_embed"].reshape(2, 2, 2, 2, WIDTH)
    torch.testing.assert_close(state["pos_embed_view"].reshape(2, 2, WIDTH), old.mean(dim=(1, 3)))
    if pooled:
        queries = source["z_embedder.cls_token"].reshape(2, 2, 2, 2, WIDTH).mean(dim=(1, 3))
        torch.testing.assert_close(state["z_embedder_view.cls_token"].reshape(2, 2, WIDTH), queries)
    # 4x4 -> 3x3: the middle cell lies between the four inner ones
    inner = source["pos_embed"].reshape(4, 4, WIDTH)[1:3, 1:3].mean(dim=(0, 1))
    torch.testing.assert_close(state["pos_embed_bev"][0, 4], inner)


def test_equal_grids_are_copied_exactly():
    source = two_dimensional(pooled=True, side=2)
    denoiser = fresh(birdseye_grid=None)
    initialise_denoiser(denoiser, source)
    assert denoiser.pos_embed_view.equal(source["model.mm_inv_projector.net.pos_embed"])


def test_a_released_ross3d_denoiser_is_a_start_too():
    weights = {k: v.float() for k, v in released_weights().items()} | {"mask_token": torch.ones(DIM)}
    denoiser = fresh()
    assert initialise_denoiser(denoiser, weights).equal(torch.ones(DIM))
    for key, value in denoiser.state_dict().items():
        assert value.equal(weights[f"net.{key}"])
    larger = fresh(view_grid=(4, 4))
    initialise_denoiser(larger, weights)
    assert larger.pos_embed_view.shape == (1, 16, WIDTH)
    views_only = fresh(birdseye_grid=None)
    initialise_denoiser(views_only, weights)
    assert views_only.pos_embed_view.equal(weights["net.pos_embed_view"])


def test_a_start_of_another_size_is_refused_with_its_sizes():
    with pytest.raises(CheckpointError, match=r"10 keys missing: blocks\.2\."):
        initialise_denoiser(fresh(depth=3), two_dimensional(pooled=True))
    with pytest.raises(CheckpointError, match=r"37 of another size: .*attn\.proj\.bias is \(32,\), expected \(48,\)"):
        initialise_denoiser(fresh(width=48, depth=2), two_dimensional(pooled=False))
    with pytest.raises(CheckpointError, match=r"have 16 attention heads, this one 4; set 'denoiser: \{heads: 16\}'"):
        initialise_denoiser(fresh(heads=4), two_dimensional(pooled=True))
    with pytest.raises(CheckpointError, match=r"two-dimensional denoiser.*denoiser: \{init: PATH\}"):
        load_released_denoiser(two_dimensional(pooled=False))


def test_the_schedule_is_the_released_one():
    assert float(CosineDiffusion().alphas_cumprod[500]) == pytest.approx(cosine_alpha(500), abs=1e-6)
