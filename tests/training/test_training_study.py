"""The study of docs/study.md: its arms are recipes, all see the same words, and its figures are what they say."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from stereopsis.data.batch import SceneProposals
from stereopsis.data.pack import Conversation, ScenePack
from stereopsis.packs.dataset import EvenSampler, PackDataset

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
pytestmark = pytest.mark.skipif(not (SCRIPTS / "study.py").is_file(), reason="scripts lie in the checkout only")


@pytest.fixture(scope="module")
def study():
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location("study", SCRIPTS / "study.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["study"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in ("study", "study_arms"):
            sys.modules.pop(name, None)


def run(seed: int, right: dict[str, list[float]], asked: int = 4) -> dict:
    """A registry entry: per question type, how many answers are right in each room."""
    samples = {kind: {f"room{i}": [value, asked] for i, value in enumerate(rooms)} for kind, rooms in right.items()}
    return {"arm": "x", "seed": seed, "samples": samples}


def room(number: int) -> ScenePack:
    """Four black views of which thirty things are asked."""
    return ScenePack(
        scene_id=f"r{number}",
        frame_names=("a", "b", "c", "d"),
        images=torch.zeros(4, 3, 1, 1, dtype=torch.uint8),
        coordinates=torch.zeros(4, 1, 1, 3),
        coordinates_valid=torch.zeros(4, 1, 1, dtype=torch.bool),
        cameras=torch.zeros(4, 4, 4),
        intrinsics=torch.zeros(4, 3, 3),
        proposals=SceneProposals(boxes=torch.zeros(0, 6), cells=torch.zeros(0, 4, 1, 1, dtype=torch.bool)),
        conversations=(Conversation(id="q", task="scanqa", prompt="what?", answer="this"),) * 30,
    )


def test_every_arm_is_a_recipe_and_is_compared_with_one(study, tmp_path):
    for name, arm in study.ARMS.items():
        recipe = study.Job(name=name, arm=arm, seed=3).recipe(tmp_path)
        assert recipe.seed == 3
        assert recipe.evaluation.sources[0].frame == recipe.data.sources[0].frame
        assert arm.start is None or recipe.model.base.endswith(f"{study.SETTING}--{arm.start}--seed3/model")
        assert arm.against is None or arm.against in study.ARMS
        assert arm.hypothesis


def test_arms_of_one_comparison_read_the_same_words_in_the_same_steps(study, tmp_path):
    read = {}
    for name in ("none-10", "depth-10", "point_map-10", "shuffled-10"):
        recipe = study.Job(name=name, arm=study.ARMS[name], seed=1).recipe(tmp_path)
        data = recipe.data
        dataset = PackDataset(
            [room(i) for i in range(60)],
            conversations=data.conversations,
            text_share=data.text_share,
            vision_only=data.vision_only,
            seed=recipe.seed,
        )
        order = [dataset.items[i] for i in EvenSampler(dataset, recipe.seed)]
        step = recipe.training.scenes
        steps = [order[i : i + step] for i in range(0, len(order), step)]
        read[name] = [[item for item in items if item[1]] for items in steps]
        assert all(len(items) == 4 for items in read[name])
    assert read["none-10"] == read["depth-10"] == read["point_map-10"] == read["shuffled-10"]


def test_figures_by_hand(study):
    kinds = {kind: [1.0, 3.0] for kind in study.SPACE[1:]} | {study.SPACE[0]: [4.0, 4.0], "scanrefer": [0.0, 1.0]}
    figures = study.figures_of(run(0, kinds)["samples"])
    assert figures["scanrefer"] == 12.5
    assert figures["space"] == pytest.approx((100 + 50 + 50) / 3)


def test_differences_are_paired_by_room_and_seed(study):
    equal = {kind: [2.0] * 6 for kind in study.SPACE}
    better = {kind: [3.0] * 6 for kind in study.SPACE}
    for seeds in ((0,), (0, 1, 2)):
        one, other = ({s: run(s, kinds) for s in seeds} for kinds in (better, equal))
        for runs in (one, other):
            for record in runs.values():
                record["figures"] = study.figures_of(record["samples"])
        mean, low, high, number = study.difference(one, other, "space")
        assert (mean, low, high, number) == pytest.approx((25.0, 25.0, 25.0, len(seeds)))
    assert study.difference({0: one[0]}, {1: other[1]}, "space") is None


def test_the_registry_is_read_back_and_tabled(study, tmp_path):
    kinds = {kind: [2.0, 1.0] for kind in (*study.SPACE, "scanrefer", "multi3drefer")}
    for name in ("none-10", "depth-10"):
        record = run(0, kinds) | {"arm": name}
        record["figures"] = study.figures_of(record["samples"])
        (tmp_path / f"{study.SETTING}--{name}--seed0.json").write_text(json.dumps(record))
    (tmp_path / "another--none-10--seed0.json").write_text("{}")  # of another setting: never mixed
    found = study.read_registry(tmp_path)
    assert {name: list(runs) for name, runs in found.items()} == {"none-10": [0], "depth-10": [0]}
    text = study.table(found)
    assert "| depth-10 | 1 | 37.5 |" in text
    assert "+0.0 (+0.0 to +0.0)" in text
    assert study.seconds_of(study.Job(name="none-10", arm=study.ARMS["none-10"], seed=0), {}, tmp_path) > 60
