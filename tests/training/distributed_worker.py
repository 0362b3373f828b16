"""One of several processes that train: does the jobs of a file, one after another, with the engine that each names."""

import dataclasses
import itertools
import json
import os
import sys
from pathlib import Path

ENGINES: dict[str, dict[str, str]] = {
    "ddp": {},
    "fsdp": {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    },
}
ENGINES |= {
    f"zero{stage}": {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage),
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
        "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
    }
    for stage in (2, 3)
}
ENGINES["fsdp-checkpointing"] = {**ENGINES["fsdp"], "FSDP_ACTIVATION_CHECKPOINTING": "true"}


def broken(*_: object) -> object:
    """What reading a scene does where it fails."""
    raise OSError("this process's disk is gone")


def diverge(call: int) -> None:
    """Let the alignment loss of this process be NaN in one of its calls."""
    from stereopsis.objectives.alignment import FeatureAlignment

    honest, calls = FeatureAlignment.loss, itertools.count(1)

    def loss(self, outputs, batch, generator):
        found = honest(self, outputs, batch, generator)
        return dataclasses.replace(found, sum=found.sum * float("nan")) if next(calls) == call else found

    FeatureAlignment.loss = loss  # type: ignore[method-assign]


def main(jobs: Path) -> None:
    from stereopsis.errors import DivergenceError
    from stereopsis.objectives.alignment import FeatureAlignment
    from stereopsis.packs.dataset import PackDataset
    from stereopsis.training.recipe import parse_recipe
    from stereopsis.training.train_run import train

    for job in json.loads(jobs.read_text()):
        for key in {key for settings in ENGINES.values() for key in settings}:
            os.environ.pop(key, None)
        os.environ |= ENGINES[job["engine"]]
        if job.get("fails") == int(os.environ["RANK"]):
            PackDataset.__getitem__ = broken  # type: ignore[method-assign,assignment]
        honest = FeatureAlignment.loss
        if "diverges" in job and os.environ["RANK"] == "1":
            diverge(job["diverges"])
        try:
            train(parse_recipe(job["recipe"]), Path(job["folder"]), resume=job.get("resume", False), progress=False)
        except DivergenceError as error:
            if "diverges" not in job:
                raise
            Path(f"{job['folder']}-{os.environ['RANK']}.txt").write_text(str(error))
        FeatureAlignment.loss = honest  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
