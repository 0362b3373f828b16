import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stereopsis.errors import CheckpointError, RecipeError
from stereopsis.teachers.latent_tokenizers import (
    KLTokenizer,
    PixelTokenizer,
    TinyTokenizer,
    load_latent_tokenizer,
    rooms_autoencoder_folder,
)
from stereopsis.teachers.latents import psnr, space_to_depth

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TAEF1 = DATA / "taef1"
KITCHEN = DATA / "seven_scenes_redkitchen"
needs_taef1 = pytest.mark.skipif(not TAEF1.is_dir(), reason="TAEF1's weights are not on this machine")


def random_vae(seed: int = 0, **config):
    """A tiny AutoencoderKL with FLUX.1's latent settings."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    settings = {"latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159, **config}
    levels = 4
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **settings,
    )


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, 3, 48, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def kitchen():
    files = sorted(KITCHEN.glob("*.color.jpg"))
    if not files:
        pytest.skip("the kitchen capture is not on this machine")
    squares = []
    for file in files[:: len(files) // 2][:2]:
        image = Image.open(file).convert("RGB").crop((80, 0, 560, 480))
        squares.append(np.array(image.resize((384, 384), Image.Resampling.BICUBIC)))
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()


def test_flux_scale_and_shift(images):
    vae = random_vae()
    tokenizer = KLTokenizer(vae)
    with torch.no_grad():
        raw = vae.encode(images.float() / 127.5 - 1).latent_dist
    posterior = tokenizer.posterior(images)
    assert posterior.mean.shape == (3, 16, 6, 8)
    torch.testing.assert_close(posterior.mean, (raw.mean - 0.1159) * 0.3611)
    torch.testing.assert_close(posterior.std, raw.std * 0.3611)
    assert tokenizer.channels == 64
    torch.testing.assert_close(tokenizer.encode_cells(images), space_to_depth(posterior.mean))


def test_decoding_undoes_scale_and_shift(images):
    vae = random_vae()
    tokenizer = KLTokenizer(vae)
    with torch.no_grad():
        direct = vae.decode(vae.encode(images.float() / 127.5 - 1).latent_dist.mean).sample
    expected = direct.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    got = tokenizer.decode_cells(tokenizer.encode_cells(images))
    assert (got.int() - expected.int()).abs().max() <= 1  # rounding of a value on the edge


def test_missing_shift_means_zero_and_statistics_per_channel_are_used(images):
    plain = random_vae(shift_factor=None, scaling_factor=0.5)
    raw = KLTokenizer(random_vae(shift_factor=0.0, scaling_factor=1.0)).posterior(images).mean
    torch.testing.assert_close(KLTokenizer(plain).posterior(images).mean, raw * 0.5)
    mean, std = np.linspace(-1, 1, 16), np.linspace(1, 2, 16)
    per_channel = random_vae(latents_mean=mean.tolist(), latents_std=std.tolist(), scaling_factor=0.5)
    expected = (raw - torch.tensor(mean).view(1, -1, 1, 1)) * 0.5 / torch.tensor(std).view(1, -1, 1, 1)
    torch.testing.assert_close(KLTokenizer(per_channel).posterior(images).mean, expected.float())


def test_sampling_follows_the_generator_and_the_mean_is_the_default(images):
    tokenizer = KLTokenizer(random_vae(), chunk=2)
    one = tokenizer.encode_cells(images, generator=torch.Generator().manual_seed(1))
    same = KLTokenizer(random_vae(), chunk=16).encode_cells(images, generator=torch.Generator().manual_seed(1))
    other = tokenizer.encode_cells(images, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(one, same)  # the chunk size does not enter the noise
    assert (one - other).abs().mean() > 0.01
    many = torch.stack([tokenizer.encode_cells(images, generator=torch.Generator().manual_seed(s)) for s in range(64)])
    posterior = tokenizer.posterior(images)
    bound = 5 * space_to_depth(posterior.std) / 8
    assert ((many.mean(dim=0) - tokenizer.encode_cells(images)).abs() < bound).all()


def test_no_gradient_reaches_a_teacher_but_its_targets_serve_a_loss(images):
    vae = random_vae()
    tokenizer = KLTokenizer(vae.train())
    assert not vae.training
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cells = tokenizer.encode_cells(images)
    assert cells.dtype == torch.float32
    assert torch.equal(cells, tokenizer.encode_cells(images))  # autocast outside changes nothing
    assert not cells.requires_grad
    assert not cells.is_inference()
    student = torch.zeros_like(cells, requires_grad=True)
    (student * cells).square().sum().backward()  # saves the target for the backward pass
    assert student.grad is not None
    predicted = cells.clone().requires_grad_()
    assert not tokenizer.decode_cells(predicted).requires_grad
    assert all(p.grad is None and not p.requires_grad for p in vae.parameters())


def test_fingerprint_changes_with_weights_and_with_preprocessing():
    base = KLTokenizer(random_vae()).fingerprint
    assert base == KLTokenizer(random_vae(), chunk=3).fingerprint
    assert base != KLTokenizer(random_vae(seed=1)).fingerprint
    assert base != KLTokenizer(random_vae(scaling_factor=0.5)).fingerprint
    nudged = random_vae()
    with torch.no_grad():
        nudged.decoder.conv_out.bias[0] += 1e-6
    assert base != KLTokenizer(nudged).fingerprint
    assert PixelTokenizer(patch=8).fingerprint != PixelTokenizer(patch=4).fingerprint
    assert len(base) == 64


def test_kl_folder_round_trip_and_pipeline_subfolder(tmp_path, images):
    vae = random_vae()
    vae.save_pretrained(tmp_path / "pipeline" / "vae")
    expected = KLTokenizer(vae).encode_cells(images)
    for spec in (f"kl:{tmp_path}/pipeline/vae", f"flux:{tmp_path}/pipeline", f"flux:{tmp_path}/pipeline/vae"):
        tokenizer = load_latent_tokenizer(spec)
        torch.testing.assert_close(tokenizer.encode_cells(images), expected)
        assert tokenizer.fingerprint == KLTokenizer(vae).fingerprint


def random_tiny(**config):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    widths = {f"{part}_block_out_channels": (4,) * 4 for part in ("encoder", "decoder")}
    depths = {f"num_{part}_blocks": (1,) * 4 for part in ("encoder", "decoder")}
    return AutoencoderTiny(**widths, **depths, **{"latent_channels": 16, **config})


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.7, 0.3)])
def test_tiny_folder_round_trip_scales_as_its_config_says(tmp_path, images, scale, shift):
    vae = random_tiny(scaling_factor=scale, shift_factor=shift)
    vae.save_pretrained(tmp_path)
    tokenizer = load_latent_tokenizer(f"taef1:{tmp_path}")
    with torch.no_grad():
        raw = vae.encode(images.float() / 127.5 - 1).latents
    posterior = tokenizer.posterior(images)
    torch.testing.assert_close(posterior.mean, (raw - shift) * scale)
    with torch.no_grad():
        decoded = vae.decode(raw).sample.clamp(-1, 1).add(1).mul(127.5).round()
    assert (tokenizer.decode_cells(tokenizer.encode_cells(images)).float() - decoded).abs().max() <= 1
    assert posterior.std is None
    drawn = tokenizer.encode_cells(images, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, tokenizer.encode_cells(images))


@needs_taef1
def test_taef1_pair_reconstructs_photographs(kitchen):
    tokenizer = load_latent_tokenizer(f"taef1:{TAEF1}")
    cells = tokenizer.encode_cells(kitchen)
    assert cells.shape == (2, 24, 24, 64)
    assert 0.6 < cells.std() < 1.4  # already scaled
    assert psnr(kitchen, tokenizer.decode_cells(cells)).mean() > 30
    assert tokenizer.encode_cells(kitchen[:1], size=216).shape == (1, 14, 14, 64)


@needs_taef1
def test_taef1_pair_with_a_missing_file_or_weight(tmp_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(CheckpointError, match=r"taef1_encoder.safetensors' does not exist"):
        load_latent_tokenizer(f"taef1:{tmp_path}")
    for part in ("encoder", "decoder"):
        state = load_file(TAEF1 / f"taef1_{part}.safetensors")
        save_file(state, tmp_path / f"taef1_{part}.safetensors")
    state.pop("19.bias")
    save_file(state, tmp_path / "taef1_decoder.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 1 weight.*decoder.layers.18.bias"):
        TinyTokenizer.from_pretrained(tmp_path, name="taef1")
    state["19.bias"] = torch.zeros(4)
    save_file(state, tmp_path / "taef1_decoder.safetensors")
    with pytest.raises(CheckpointError, match=r"shape \(4,\), expected \(3,\)"):
        TinyTokenizer.from_pretrained(tmp_path, name="taef1")
    save_file({"0.weight": torch.zeros(1)}, tmp_path / "taef1_decoder.safetensors")
    with pytest.raises(CheckpointError, match=r"unknown weight '0\.weight'"):
        TinyTokenizer.from_pretrained(tmp_path, name="taef1")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("romos", r"unknown latent tokenizer 'romos' \(did you mean 'rooms'\?\)"),
        ("fluks:x", r"did you mean 'flux'\?"),
        ("taef1", r"should read 'taef1:PATH'"),
        ("kl:", r"should read 'kl:PATH_OR_ID'"),
        ("rooms:somewhere", r"should read 'rooms'"),
    ],
)
def test_unknown_specs_are_refused_with_the_nearest_name(spec, message):
    with pytest.raises(RecipeError, match=message):
        load_latent_tokenizer(spec)


def test_broken_checkpoints_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no folder '/nowhere/at/all'"):
        load_latent_tokenizer("flux:/nowhere/at/all")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_latent_tokenizer(f"kl:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(CheckpointError, match=r"no diffusion_pytorch_model\.safetensors"):
        load_latent_tokenizer(f"kl:{tmp_path}")
    (tmp_path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is a file; AutoencoderKL needs a folder"):
        load_latent_tokenizer(f"kl:{tmp_path}/weights.safetensors")


def test_weights_of_another_architecture_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    random_vae().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state.pop("decoder.conv_out.bias")
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"decoder\.conv_out\.bias"):
        load_latent_tokenizer(f"kl:{tmp_path}")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot load AutoencoderKL"):
        load_latent_tokenizer(f"kl:{tmp_path}")


def test_flux_means_sixteen_channels(tmp_path):
    random_vae(latent_channels=4).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"16 latent channels, but .* has 4; use 'kl:"):
        load_latent_tokenizer(f"flux:{tmp_path}")


def test_shipped_autoencoder_is_small_and_good_on_fresh_rooms():
    pytest.importorskip("embreex")
    from stereopsis.scenes.rooms import make_room

    folder = rooms_autoencoder_folder()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2_000_000
    tokenizer = load_latent_tokenizer("rooms")
    views = [frame.colour() for seed in range(7_000_000_000, 7_000_000_006) for frame in make_room(seed).frames]
    images = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).contiguous()
    cells = tokenizer.encode_cells(images)
    assert cells.shape == (len(images), 6, 6, tokenizer.channels)
    assert 0.8 < cells.std() < 1.2
    assert abs(cells.mean()) < 0.2
    quality = psnr(images, tokenizer.decode_cells(cells)).mean()
    own_colour = images.float().mean(dim=(2, 3), keepdim=True).expand(images.shape).to(torch.uint8)
    assert quality > 26
    assert quality > psnr(images, own_colour).mean() + 8


@pytest.mark.gpu
def test_a_device_gives_the_same_latents(images):
    here = KLTokenizer(random_vae())
    there = KLTokenizer(random_vae()).to("cuda")
    assert here.fingerprint == there.fingerprint
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    a, b = (t.encode_cells(images, generator=g) for t, g in zip((here, there), generators, strict=True))
    assert b.is_cuda
    torch.testing.assert_close(a, b.cpu(), atol=2e-3, rtol=1e-2)
