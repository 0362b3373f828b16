"""Each family's latents are normalised exactly as diffusers' pipelines for that family do it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from stereopsis.errors import CheckpointError, RecipeError
from stereopsis.teachers.latent_tokenizers import LATENT_TOKENIZERS, Flux2Tokenizer, KLTokenizer, load_latent_tokenizer
from stereopsis.teachers.latents import even_sides, even_sides_std, space_to_depth

LEVELS = 4
SMALL = {
    "block_out_channels": (8,) * LEVELS,
    "down_block_types": ("DownEncoderBlock2D",) * LEVELS,
    "up_block_types": ("UpDecoderBlock2D",) * LEVELS,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "mid_block_add_attention": False,
}
PUBLISHED = {
    "flux": {"latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159},
    "sd3": {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609},
    "sdxl": {"latent_channels": 4, "scaling_factor": 0.13025},
    "sd1": {"latent_channels": 4, "scaling_factor": 0.18215},
}


def random_kl(seed=0, **config):
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(**SMALL, **config).eval()


def random_flux2(seed=0):
    """FLUX.2's autoencoder at width 8, with batch norm statistics that differ from channel to channel."""
    from diffusers import AutoencoderKLFlux2

    torch.manual_seed(seed)
    vae = AutoencoderKLFlux2(**SMALL, latent_channels=8)
    vae.bn.running_mean.copy_(torch.randn(32))
    vae.bn.running_var.copy_(torch.rand(32) * 3 + 0.2)
    return vae.eval()


def random_tiny(channels):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    widths = {f"{part}_block_out_channels": (4,) * 4 for part in ("encoder", "decoder")}
    depths = {f"num_{part}_blocks": (1,) * 4 for part in ("encoder", "decoder")}
    return AutoencoderTiny(**widths, **depths, latent_channels=channels)


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (2, 3, 32, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def kitchen():
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "seven_scenes_redkitchen"
    files = sorted(folder.glob("*.color.jpg"))
    if not files:
        pytest.skip("the kitchen capture is not on this machine")
    squares = [Image.open(file).convert("RGB").crop((80, 0, 560, 480)) for file in files[:: len(files) // 4]]
    small = [np.array(square.resize((216, 216), Image.Resampling.BILINEAR)) for square in squares]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous()


def unit(images):
    return images.float().div(127.5).sub(1)


def test_flux2_cells_are_the_pipelines(images):
    from diffusers import Flux2Pipeline

    vae = random_flux2()
    pipeline = SimpleNamespace(vae=vae, _patchify_latents=Flux2Pipeline._patchify_latents)
    with torch.no_grad():
        expected = Flux2Pipeline._encode_vae_image(pipeline, unit(images), None).permute(0, 2, 3, 1)
    cells = Flux2Tokenizer(vae).encode_cells(images)
    assert cells.shape == (2, 2, 3, 32)
    torch.testing.assert_close(cells, expected, atol=1e-5, rtol=1e-5)


def test_flux2_decodes_its_own_cells_as_the_pipeline_does(images):
    from diffusers import Flux2Pipeline

    vae = random_flux2()
    tokenizer = Flux2Tokenizer(vae)
    cells = tokenizer.encode_cells(images)
    std = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
    latents = cells.permute(0, 3, 1, 2) * std + vae.bn.running_mean.view(1, -1, 1, 1)
    with torch.no_grad():
        decoded = vae.decode(Flux2Pipeline._unpatchify_latents(latents)).sample
    expected = decoded.clamp(-1, 1).add(1).mul(127.5).round()
    assert (tokenizer.decode_cells(cells).float() - expected).abs().max() <= 1


def test_flux2_posterior_cells_are_of_unit_spread_where_the_statistics_are_right(images):
    vae = random_flux2()
    tokenizer = Flux2Tokenizer(vae)
    raw = tokenizer.posterior(images)
    folded = space_to_depth(raw.mean).flatten(0, 2)
    vae.bn.running_mean.copy_(folded.mean(dim=0))
    vae.bn.running_var.copy_(folded.var(dim=0) - vae.config.batch_norm_eps)
    cells = Flux2Tokenizer(vae).encode_posterior_cells(images)
    flat = cells.mean.flatten(0, 2)
    torch.testing.assert_close(flat.mean(dim=0), torch.zeros(32), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.std(dim=0), torch.ones(32), atol=2e-3, rtol=0)
    assert raw.std is not None
    assert cells.std is not None
    torch.testing.assert_close(cells.std, space_to_depth(raw.std) / folded.std(dim=0), atol=0, rtol=2e-3)


def test_flux2_statistics_belong_to_the_fingerprint():
    base, vae = Flux2Tokenizer(random_flux2()).fingerprint, random_flux2()
    vae.bn.running_var[3] += 0.1
    assert Flux2Tokenizer(vae).fingerprint != base
    assert Flux2Tokenizer(random_flux2(), chunk=1).fingerprint == base


def test_flux_draws_are_the_pipelines(images):
    from diffusers import FluxImg2ImgPipeline

    vae = random_kl(**PUBLISHED["flux"])
    pipeline = SimpleNamespace(vae=vae)
    with torch.no_grad():
        latents = FluxImg2ImgPipeline._encode_vae_image(pipeline, unit(images), torch.Generator().manual_seed(3))
    drawn = KLTokenizer(vae).encode_cells(images, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn, space_to_depth(latents), atol=1e-5, rtol=1e-5)


def test_sdxl_with_channel_statistics_is_the_pipelines(images):
    from diffusers import StableDiffusionXLImg2ImgPipeline

    statistics = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.0, 2.0, 0.5, 0.8]}
    vae = random_kl(latent_channels=4, scaling_factor=0.13025, force_upcast=False, **statistics)
    pipeline = SimpleNamespace(vae=vae, _execution_device=torch.device("cpu"))
    latents = StableDiffusionXLImg2ImgPipeline.prepare_latents(
        pipeline, unit(images), None, 2, 1, torch.float32, "cpu", torch.Generator().manual_seed(3), add_noise=False
    )
    drawn = KLTokenizer(vae).encode_cells(images, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn, space_to_depth(latents), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["sd3", "sdxl", "sd1", "flux"])
def test_a_familys_numbers_are_applied(kind, images, tmp_path):
    config = PUBLISHED[kind]
    vae = random_kl(**config)
    vae.save_pretrained(tmp_path / "pipeline" / "vae")
    tokenizer = load_latent_tokenizer(f"{kind}:{tmp_path}/pipeline")
    with torch.no_grad():
        latent = vae.encode(unit(images)).latent_dist
    shift, scale = config.get("shift_factor", 0.0), config["scaling_factor"]
    posterior = tokenizer.posterior(images)
    torch.testing.assert_close(posterior.mean, (latent.mean - shift) * scale)
    torch.testing.assert_close(posterior.std, latent.std * scale)
    assert tokenizer.name == kind


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("sd3", PUBLISHED["flux"], r"Stable Diffusion 3's autoencoder has shift_factor 0\.0609, but .*0\.1159.*'kl:"),
        ("flux", PUBLISHED["sd3"], r"FLUX\.1's autoencoder has shift_factor 0\.1159, but .* has \[0\.0609\]"),
        ("sdxl", PUBLISHED["sd1"], r"SDXL's autoencoder has scaling_factor 0\.13025, but .* has \[0\.18215\]"),
        ("sd1", PUBLISHED["sd3"], r"has 4 latent channels, but .* has 16"),
    ],
)
def test_another_familys_autoencoder_is_refused(kind, config, message, tmp_path):
    random_kl(**config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_latent_tokenizer(f"{kind}:{tmp_path}")


def test_flux2_folder_round_trip(tmp_path, images):
    vae = random_flux2()
    vae.save_pretrained(tmp_path)
    tokenizer = load_latent_tokenizer(f"flux2:{tmp_path}")
    assert tokenizer.fingerprint == Flux2Tokenizer(vae).fingerprint
    assert torch.equal(tokenizer.encode_cells(images), Flux2Tokenizer(vae).encode_cells(images))
    with pytest.raises(CheckpointError, match="AutoencoderKL"):
        load_latent_tokenizer(f"kl:{tmp_path}")


@pytest.mark.parametrize(("kind", "channels"), [("taesd", 4), ("taesdxl", 4), ("taesd3", 16), ("taef1", 16)])
def test_taesd_pairs_are_found_under_their_own_names(kind, channels, tmp_path, images):
    from diffusers import AutoencoderTiny
    from safetensors.torch import save_file

    torch.manual_seed(1)
    tiny = AutoencoderTiny(latent_channels=channels)
    for part, offset in (("encoder", 0), ("decoder", 1)):
        layers = getattr(tiny, part).layers.state_dict()
        renamed = {
            f"{int(number) + offset}.{rest}": value
            for key, value in layers.items()
            for number, _, rest in [key.partition(".")]
        }
        save_file(renamed, tmp_path / f"{kind}_{part}.safetensors")
    tokenizer = load_latent_tokenizer(f"{kind}:{tmp_path}")
    with torch.no_grad():
        raw = tiny.encode(unit(images)).latents
    torch.testing.assert_close(tokenizer.encode_cells(images), space_to_depth(raw))
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_latent_tokenizer(f"tiny:{tmp_path}")


def test_a_tiny_autoencoder_of_another_family_is_refused(tmp_path):
    random_tiny(4).save_pretrained(tmp_path)
    assert load_latent_tokenizer(f"tiny:{tmp_path}").latent_channels == 4
    with pytest.raises(CheckpointError, match=r"'taesd3' has 16 latent channels, but .* has 4; use 'tiny:"):
        load_latent_tokenizer(f"taesd3:{tmp_path}")


def test_every_kind_is_listed_in_errors():
    with pytest.raises(RecipeError) as caught:
        load_latent_tokenizer("nonsense")
    for kind in LATENT_TOKENIZERS.values():
        assert f"'{kind.form}' ({kind.what})" in str(caught.value)


def test_odd_posterior_cells_keep_most_of_the_neighbours_correlation(kitchen):
    """216 px views, 27 latents made 28: what `CellPosterior` cannot know is how much neighbours' spreads differ."""
    spread = load_latent_tokenizer("rooms").posterior(kitchen).std
    assert spread is not None
    assert spread.shape[-2:] == (27, 27)
    line = torch.eye(27, dtype=torch.float64).reshape(27, 1, 1, 27).repeat(1, 1, 2, 1)
    weights = even_sides(line)[:, 0, 0].T  # [28 27]: how each new latent is made of the old ones

    def correlation(std):
        variance = even_sides_std(std) ** 2
        shared = torch.einsum("yh,nchw,xw->ncyx", weights**2, std**2, weights[:-1] * weights[1:])
        return shared / (variance[..., :-1] * variance[..., 1:]).sqrt()

    exact, kept = correlation(spread.double()), correlation(torch.ones_like(spread).double())
    error = (exact - kept).abs().mean().item()
    assert 0.25 < exact.mean() < 0.4  # dropped altogether, this would be the error
    assert error < 0.03
