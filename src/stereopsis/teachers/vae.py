"""The latent tokenizers at hand: KL autoencoders (FLUX.1's, ours), TAEF1, and plain pixels as a control."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

import stereopsis.assets
from stereopsis.errors import CheckpointError, RecipeError, did_you_mean
from stereopsis.teachers.latents import LatentPosterior, LatentTokenizer

SPECS = {
    "rooms": "the small autoencoder that ships with this package",
    "pixels": "patchified pixels, a control without any network",
    "taef1:PATH": "TAEF1, FLUX.1's latents at a fraction of the cost",
    "flux:PATH_OR_ID": "FLUX.1's autoencoder, Ross3D's teacher",
    "kl:PATH_OR_ID": "any other diffusers AutoencoderKL",
}
_PREPARED = {"range": [-1, 1], "resize": "bilinear antialias", "odd_side": "bilinear to even", "cell": "2x2"}
_TAESD_PARTS = ("encoder", "decoder")


class KLTokenizer(LatentTokenizer):
    """A diffusers `AutoencoderKL`; latents are (z - shift_factor) * scaling_factor of its config.

    FLUX.1's has 16 channels, shift 0.1159 and scale 0.3611. Where the config gives `latents_mean` and
    `latents_std` per channel, (z - mean) * scaling_factor / std takes its place, as in diffusers' pipelines.
    """

    def __init__(self, vae: nn.Module, *, name: str = "kl", chunk: int = 16) -> None:
        super().__init__(chunk=chunk)
        config = _config(vae)
        self.name = name
        self.latent_channels = config.latent_channels
        self.downsampling = 2 ** (len(config.block_out_channels) - 1)
        self._vae = _frozen(vae)
        self._shift, self._scale = _affine(config)

    @property
    def module(self) -> nn.Module:
        """The frozen autoencoder."""
        return self._vae

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Kind, scale and shift besides the conventions that all tokenizers share."""
        return {
            **_PREPARED,
            "kind": "kl",
            "shift": self._shift.flatten().tolist(),
            "scale": self._scale.flatten().tolist(),
        }

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        subfolder: str = "",
        name: str = "kl",
        dtype: torch.dtype = torch.float32,
        chunk: int = 16,
    ) -> "KLTokenizer":
        """Load a diffusers folder or Hugging Face id.

        Args:
            source: a folder with config.json (or with vae/config.json, a whole pipeline), or a hub id.
            subfolder: where the autoencoder lies in a hub repository ("vae" in FLUX.1's).
            name: short name for recipes, caches and logs.
            dtype: of weights and computation.
            chunk: pictures at a time.

        Raises:
            CheckpointError: no such folder, no such file in it, or weights that do not match the config.
        """
        from diffusers import AutoencoderKL

        return cls(_from_pretrained(AutoencoderKL, source, subfolder, dtype), name=name, chunk=chunk)

    def _encode(self, pictures: Float[Tensor, "n 3 height width"]) -> LatentPosterior:
        latent = self._vae.encode(pictures.to(self._vae.dtype)).latent_dist
        shift, scale = self._shift.to(self.device), self._scale.to(self.device)
        return LatentPosterior(mean=(latent.mean.float() - shift) * scale, std=latent.std.float() * scale)

    def _decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 height width"]:
        raw = latents / self._scale.to(self.device) + self._shift.to(self.device)
        return self._vae.decode(raw.to(self._vae.dtype)).sample.float()


class TinyTokenizer(LatentTokenizer):
    """A diffusers `AutoencoderTiny` such as TAEF1: its latents are scaled already and have no spread."""

    def __init__(self, vae: nn.Module, *, name: str = "taef1", chunk: int = 16) -> None:
        super().__init__(chunk=chunk)
        self.name = name
        config = _config(vae)
        self.latent_channels = config.latent_channels
        self.downsampling = 2 ** (len(config.encoder_block_out_channels) - 1)
        self._vae = _frozen(vae)

    @property
    def module(self) -> nn.Module:
        """The frozen autoencoder."""
        return self._vae

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """The conventions that all tokenizers share."""
        return {**_PREPARED, "kind": "tiny"}

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        name: str = "taef1",
        dtype: torch.dtype = torch.float32,
        chunk: int = 16,
    ) -> "TinyTokenizer":
        """Load a diffusers folder or hub id, or a folder with taef1_encoder and taef1_decoder .safetensors.

        Raises:
            CheckpointError: no such folder, no such file in it, or weights that do not match.
        """
        from diffusers import AutoencoderTiny

        folder = Path(source).expanduser()
        if folder.is_dir() and not (folder / "config.json").is_file():
            tiny: Any = AutoencoderTiny(latent_channels=16, scaling_factor=1.0, shift_factor=0.0)
            _load_all(tiny, _taesd_pair(folder), folder)
            if dtype != torch.float32:
                tiny.to(dtype)
            return cls(tiny, name=name, chunk=chunk)
        return cls(_from_pretrained(AutoencoderTiny, source, "", dtype), name=name, chunk=chunk)

    def _encode(self, pictures: Float[Tensor, "n 3 height width"]) -> LatentPosterior:
        return LatentPosterior(mean=self._vae.encode(pictures.to(self._vae.dtype)).latents.float())

    def _decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 height width"]:
        return self._vae.decode(latents.to(self._vae.dtype)).sample.float()


class PixelTokenizer(LatentTokenizer):
    """Patches of pixels in [-1, 1] as "latents": the control that tells what a learned latent space adds.

    The round trip is exact where the number of patches along each side is even.
    """

    def __init__(self, *, patch: int = 8, chunk: int = 16) -> None:
        super().__init__(chunk=chunk)
        self.name = "pixels"
        self.downsampling = patch
        self.latent_channels = 3 * patch * patch

    @property
    def module(self) -> None:
        """No network."""
        return None

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """The patch size besides the conventions that all tokenizers share."""
        return {**_PREPARED, "kind": "pixels", "patch": self.downsampling}

    def _encode(self, pictures: Float[Tensor, "n 3 height width"]) -> LatentPosterior:
        return LatentPosterior(mean=functional.pixel_unshuffle(pictures, self.downsampling))

    def _decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 height width"]:
        return functional.pixel_shuffle(latents, self.downsampling)


def rooms_autoencoder_folder() -> Path:
    """Where the shipped autoencoder lies."""
    return Path(stereopsis.assets.__file__).parent / "rooms_autoencoder"


def load_latent_tokenizer(
    spec: str, device: torch.device | str = "cpu", *, dtype: torch.dtype = torch.float32
) -> LatentTokenizer:
    """The tokenizer that a recipe names.

    Args:
        spec: "rooms", "pixels", "taef1:PATH", "flux:PATH_OR_ID" or "kl:PATH_OR_ID". A hub id may end in a
            subfolder ("org/name/vae"); "flux:org/name" looks into "vae" by itself.
        device: where it runs.
        dtype: of weights and computation; latents come back as float32 either way.

    Raises:
        RecipeError: unknown spec, or one without its path.
        CheckpointError: missing files or weights that do not match.
    """
    kind, colon, source = spec.partition(":")
    known = {key.partition(":")[0]: key for key in SPECS}
    if kind not in known:
        raise RecipeError(f"unknown latent tokenizer '{spec}'{did_you_mean(kind, known)}; use one of: {_listing()}")
    if bool(source) != (":" in known[kind]) or (colon and not source):
        raise RecipeError(f"latent tokenizer '{spec}' should read '{known[kind]}'; use one of: {_listing()}")
    if kind == "pixels":
        return PixelTokenizer().to(device)
    if kind == "rooms":
        return KLTokenizer.from_pretrained(rooms_autoencoder_folder(), name="rooms", dtype=dtype).to(device)
    if kind == "taef1":
        return TinyTokenizer.from_pretrained(source, dtype=dtype).to(device)
    source, subfolder = _split_hub_id(source, default="vae" if kind == "flux" else "")
    tokenizer = KLTokenizer.from_pretrained(source, subfolder=subfolder, name=kind, dtype=dtype)
    if kind == "flux" and tokenizer.latent_channels != 16:
        raise CheckpointError(
            f"FLUX.1's autoencoder has 16 latent channels, but '{source}' has {tokenizer.latent_channels}; "
            f"use 'kl:{source}' for another AutoencoderKL"
        )
    return tokenizer.to(device)


def _listing() -> str:
    return ", ".join(f"'{key}' ({what})" for key, what in SPECS.items())


def _split_hub_id(source: str, default: str) -> tuple[str, str]:
    """Split "org/name/sub/folder"; a folder on this disk stays as it is."""
    parts = source.split("/")
    if Path(source).expanduser().exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)+", source) or not parts[0].strip("."):
        return source, ""
    return "/".join(parts[:2]), "/".join(parts[2:]) or default


def _affine(config: Any) -> tuple[Tensor, Tensor]:
    """Shift and scale, [1 c 1 1] or [1 1 1 1], so that scaled = (z - shift) * scale."""
    scale = torch.tensor([1.0 if config.scaling_factor is None else config.scaling_factor])
    shift = torch.tensor([0.0 if config.shift_factor is None else config.shift_factor])
    if config.latents_mean is not None and config.latents_std is not None:
        shift, scale = torch.tensor(config.latents_mean), scale / torch.tensor(config.latents_std)
    return shift.float().view(1, -1, 1, 1), scale.float().view(1, -1, 1, 1)


def _config(vae: nn.Module) -> Any:
    return vae.config


def _frozen(module: nn.Module) -> Any:
    return module.eval().requires_grad_(False)


def _from_pretrained(cls: Any, source: str | Path, subfolder: str, dtype: torch.dtype) -> nn.Module:
    """A diffusers model with every weight accounted for."""
    folder = Path(source).expanduser()
    if folder.is_file():
        raise CheckpointError(
            f"'{folder}' is a file; {cls.__name__} needs a folder with config.json and "
            "diffusion_pytorch_model.safetensors in diffusers' layout (convert it with its from_single_file)"
        )
    if folder.is_dir():
        folder = folder / "vae" if (folder / "vae" / "config.json").is_file() else folder
        _check_folder(folder, cls.__name__)
        source, subfolder = str(folder), ""
    elif not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(source)):
        raise CheckpointError(
            f"no folder '{source}' to load {cls.__name__} from; give a diffusers folder or an id 'org/name'"
        )
    try:
        vae, info = cls.from_pretrained(
            str(source), subfolder=subfolder or None, torch_dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"cannot load {cls.__name__} from '{source}': {error}") from error
    _check_keys(source, cls.__name__, info["missing_keys"], info["unexpected_keys"])
    return vae


def _check_folder(folder: Path, kind: str) -> None:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"'{folder}' has no config.json; {kind} needs a folder in diffusers' layout")
    if not any(folder.glob("diffusion_pytorch_model*")):
        raise CheckpointError(
            f"'{folder}' has a config.json but no diffusion_pytorch_model.safetensors; "
            "download the weights into it (or train them: scripts/train_autoencoder.py)"
        )


def _check_keys(source: str | Path, kind: str, missing: Any, unexpected: Any) -> None:
    for what, keys in (("lacks", sorted(missing)), ("holds unknown", sorted(unexpected))):
        if keys:
            raise CheckpointError(
                f"'{source}' {what} {len(keys)} weight(s) of {kind}, the first being '{keys[0]}'; "
                "is it the checkpoint of another architecture?"
            )


def _taesd_pair(folder: Path) -> dict[str, Tensor]:
    """The pair of files in taesd's key names, renamed to diffusers'.

    The decoder's first layer (a clamp) has no place in diffusers' list, so its numbers move down by one.
    """
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for part, offset in zip(_TAESD_PARTS, (0, 1), strict=True):
        path = folder / f"taef1_{part}.safetensors"
        if not path.is_file():
            raise CheckpointError(
                f"'{path}' does not exist; '{folder}' should hold taef1_encoder.safetensors and "
                "taef1_decoder.safetensors, or config.json and weights in diffusers' layout"
            )
        for key, value in load_file(path).items():
            number, _, rest = key.partition(".")
            if not number.isdigit() or int(number) < offset:
                raise CheckpointError(f"'{path}' holds the unknown weight '{key}'; expected names such as '1.weight'")
            state[f"{part}.layers.{int(number) - offset}.{rest}"] = value.float()
    return state


def _load_all(module: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    own = module.state_dict()
    _check_keys(source, type(module).__name__, own.keys() - state.keys(), state.keys() - own.keys())
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise CheckpointError(
                f"weight '{key}' in '{source}' has shape {tuple(value.shape)}, "
                f"expected {tuple(own[key].shape)}; is it the checkpoint of another architecture?"
            )
    module.load_state_dict(state)
