"""Training objectives leave no trace in the model that is opened for inference."""

import torch

from stereopsis.models.spatial import SpatialModel
from stereopsis.models.storage import load_model
from stereopsis.training.train_run import train


def shape_of(model: SpatialModel) -> dict[str, list]:
    return {
        "modules": [(name, type(module).__name__) for name, module in model.named_modules()],
        "parameters": [(name, tuple(p.shape), p.dtype) for name, p in model.named_parameters()],
        "buffers": [(name, tuple(b.shape), b.dtype) for name, b in model.named_buffers()],
    }


def test_a_model_trained_with_everything_is_built_like_one_trained_with_nothing(make_recipe, finished_run, tmp_path):
    assert sum(p.numel() for p in finished_run.model.objectives.parameters()) > 0
    train(make_recipe("text", training__steps=1), tmp_path / "plain", progress=False)
    full, plain = (load_model(f / "model") for f in (finished_run.folder, tmp_path / "plain"))
    assert shape_of(full) == shape_of(plain)
    assert full.objectives is None


def test_inference_never_reads_the_heads(finished_run, tmp_path):
    """Garbage in the heads' file harms nobody who asks questions, and all that is stored elsewhere is the same size."""
    import shutil

    shutil.copytree(finished_run.folder / "model", tmp_path / "model")
    (tmp_path / "model" / "training_heads.safetensors").write_bytes(b"not a file of tensors")
    model = load_model(tmp_path / "model")
    original = load_model(finished_run.folder / "model")
    pairs = zip(model.state_dict().values(), original.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
