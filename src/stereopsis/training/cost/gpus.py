"""Public data-sheet figures of the GPUs that predictions are made for."""

import dataclasses
from collections.abc import Mapping

from stereopsis.errors import RecipeError, did_you_mean

GIB = 1024**3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU.

    Attributes:
        name: as people call it.
        memory: what programs can use of it, GiB.
        bf16: dense matrix products in bfloat16 with float32 sums, TFLOP/s.
        fp32: float32 without tensor cores, TFLOP/s.
        bandwidth: of its memory, GB/s.
    """

    name: str
    memory: float
    bf16: float
    fp32: float
    bandwidth: float


GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="H200", memory=140.0, bf16=989.4, fp32=66.9, bandwidth=4800.0),
        Gpu(name="H100", memory=79.0, bf16=989.4, fp32=66.9, bandwidth=3350.0),
        Gpu(name="A100-80", memory=79.0, bf16=312.0, fp32=19.5, bandwidth=2039.0),
        Gpu(name="A100-40", memory=39.0, bf16=312.0, fp32=19.5, bandwidth=1555.0),
        Gpu(name="A6000-48", memory=47.5, bf16=154.8, fp32=38.7, bandwidth=768.0),
        Gpu(name="L40S", memory=44.5, bf16=362.0, fp32=91.6, bandwidth=864.0),
        Gpu(name="RTX4090", memory=23.5, bf16=165.2, fp32=82.6, bandwidth=1008.0),
        Gpu(name="RTX3090", memory=23.5, bf16=71.0, fp32=35.6, bandwidth=936.0),
    )
}
"""By name, large ones first. H100 and H200 are the SXM boards."""


def gpu_named(name: str) -> Gpu:
    """A GPU by its name, upper or lower case.

    Raises:
        RecipeError: unknown; names the nearest.
    """
    known = {key.lower(): gpu for key, gpu in GPUS.items()}
    if name.lower() not in known:
        raise RecipeError(f"no figures of a GPU '{name}'{did_you_mean(name, GPUS)}")
    return known[name.lower()]
