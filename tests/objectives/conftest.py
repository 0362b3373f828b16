"""Small batches for the objectives: any number of scenes, each with its own number of views."""

import pytest
import torch

from stereopsis.data.batch import Batch
from stereopsis.data.layout import VisualLayout
from stereopsis.objectives import Denoiser, DenoiserConfig, SpatialOutputs

DIM, CHANNELS, FEATURES = 6, 4, 5
GRID, LATENT_GRID, BIRDSEYE_GRID = (2, 3), (2, 2), (3, 3)


def _batch(
    views: tuple[int, ...],
    *,
    labels: torch.Tensor | None = None,
    query_targets: torch.Tensor | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    n, scenes = sum(views), len(views)
    generator = torch.Generator().manual_seed(seed)
    targets = {
        "view_latents": torch.randn(n, *LATENT_GRID, CHANNELS, generator=generator, dtype=dtype),
        "birdseye_latents": torch.randn(scenes, *BIRDSEYE_GRID, CHANNELS, generator=generator, dtype=dtype),
        "birdseye_valid": torch.rand(scenes, *BIRDSEYE_GRID, generator=generator) < 0.7,
        "view_features": torch.randn(n, *GRID, FEATURES, generator=generator, dtype=dtype),
        "view_features_valid": torch.rand(n, *GRID, generator=generator) < 0.8,
    }
    cameras = torch.eye(4).repeat(n, 1, 1)
    cameras[:, :3, :3] = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator)).Q
    cameras[:, :3, 3] = torch.rand(n, 3, generator=generator) * 4 - 2
    coordinates = torch.rand(n, *GRID, 3, generator=generator) * 6 - 3
    tokens = max(views, default=0) * GRID[0] * GRID[1] + 4
    queries = 0 if query_targets is None else len(query_targets)
    ids = torch.zeros(scenes, tokens, dtype=torch.int64)
    return Batch(
        input_ids=ids,
        position_ids=ids,
        segments=ids,
        labels=torch.full_like(ids, -100) if labels is None else labels,
        layout=VisualLayout(
            index=torch.zeros(n, *GRID, dtype=torch.int64),
            scene=torch.repeat_interleave(torch.arange(scenes), torch.tensor(views, dtype=torch.int64)),
        ),
        images=torch.zeros(n, 3, 8, 8, dtype=torch.uint8),
        coordinates=coordinates,
        coordinates_valid=torch.rand(n, *GRID, generator=generator) < 0.7,
        cameras=cameras,
        intrinsics=torch.tensor([[8.0, 0.0, 4.0], [0.0, 9.0, 3.0], [0.0, 0.0, 1.0]]).repeat(n, 1, 1),
        encoder_tokens=None,
        proposals=(),
        query_index=torch.zeros(queries, dtype=torch.int64),
        query_scene=torch.zeros(queries, dtype=torch.int64),
        query_targets=torch.zeros(0, 0, dtype=torch.bool) if query_targets is None else query_targets,
        coord_index=torch.zeros(0, dtype=torch.int64),
        coord_xyz=torch.zeros(0, 3),
        targets=targets,
        scene_ids=tuple(f"scene{i}" for i in range(scenes)),
        conversation_ids=((),) * scenes,
    )


def _outputs(
    batch: Batch, *, hidden: torch.Tensor | None = None, seed: int = 1, dtype: torch.dtype = torch.float32
) -> SpatialOutputs:
    n = len(batch.layout.scene)
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(n, *GRID, DIM, generator=generator, dtype=dtype)
    return SpatialOutputs(
        visual=visual.requires_grad_(),
        hidden=torch.zeros(n, dtype=torch.bool) if hidden is None else hidden,
    )


def _denoiser(*, randomised: bool = True, birdseye: bool = True, dtype: torch.dtype = torch.float32) -> Denoiser:
    """A tiny denoiser; `randomised` replaces the zero-initialised parts, so that everything has a say."""
    torch.manual_seed(7)
    denoiser = Denoiser(
        DenoiserConfig(
            condition_dim=DIM,
            channels=CHANNELS,
            width=8,
            depth=2,
            heads=2,
            view_grid=LATENT_GRID,
            birdseye_grid=BIRDSEYE_GRID if birdseye else None,
        )
    )
    if randomised:
        for parameter in denoiser.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return denoiser.to(dtype)


@pytest.fixture(scope="session")
def make_batch():
    return _batch


@pytest.fixture(scope="session")
def make_outputs():
    return _outputs


@pytest.fixture(scope="session")
def make_denoiser():
    return _denoiser
