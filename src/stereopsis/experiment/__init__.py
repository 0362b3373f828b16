"""What needs everything below: runs from recipe to report, and several of them under equal conditions."""

from stereopsis.experiment.arms import Arm, demo_arms, evaluate_model, kept_packs, run_arm, unseen_packs
from stereopsis.experiment.comparison import COMPARISON_FILE, baselines, compare
from stereopsis.experiment.runs import evaluate_run, train_and_draw
from stereopsis.training.train_run import open_run

__all__ = [
    "COMPARISON_FILE",
    "Arm",
    "baselines",
    "compare",
    "demo_arms",
    "evaluate_model",
    "evaluate_run",
    "kept_packs",
    "open_run",
    "run_arm",
    "train_and_draw",
    "unseen_packs",
]
