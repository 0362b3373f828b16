"""The lmms-eval plug-in, without lmms-eval: what it writes is valid, what it computes is what `score` computes."""

import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from stereopsis.annotations import Annotation
from stereopsis.benchmarks import Prediction, prompt_of, score, summarise
from stereopsis.errors import StereopsisError
from stereopsis.integrations import lmms_eval as plugin
from stereopsis.integrations.lmms_eval import documents
from stereopsis.integrations.lmms_eval.tasks import write_tasks

ROOT = Path(__file__).resolve().parents[2]


def question(number: int, scene: str = "a", task: str = "sqa3d", answers=("yes", "ja")) -> Annotation:
    return Annotation(
        id=f"q{number}",
        task=task,
        scene_id=scene,
        type="is",
        text=f"Is this number {number}?",
        situation="I stand here." if task == "sqa3d" else "",
        answers=answers,
    )


@pytest.fixture(scope="module")
def stub() -> Iterator[types.ModuleType]:
    """lmms-eval's interface as far as the model needs it; gives our model's module."""

    class Base:
        is_simple = True

        def __init__(self) -> None:
            self.task_dict: dict[str, Any] = {}

    with pytest.MonkeyPatch.context() as patch:
        for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["lmms_eval.api.model"].lmms = Base  # type: ignore[attr-defined]
        yield importlib.import_module("stereopsis.integrations.lmms_eval.model")


class Loader(yaml.SafeLoader):
    """Reads ``!function`` as the name that it gives."""


Loader.add_constructor("!function", lambda loader, node: ("function", loader.construct_scalar(node)))


def loaded(folder: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("written", folder / "stereopsis_functions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_written_tasks_name_functions_and_data_that_are_there(tmp_path):
    scene = tmp_path / 'scenes: #1 "odd"' / "a"
    scene.mkdir(parents=True)
    asked = [(question(n, task=task), scene) for n in range(3) for task in ("sqa3d", "scanqa", "scanrefer")]
    assert write_tasks(asked, tmp_path / "out", views=8) == ["stereopsis_sqa3d", "stereopsis_scanqa"]
    functions = loaded(tmp_path / "out")
    for task in ("sqa3d", "scanqa"):
        content = yaml.load((tmp_path / "out" / f"stereopsis_{task}.yaml").read_text(), Loader)
        assert content["task"] == f"stereopsis_{task}"
        named = [value for value in content.values() if isinstance(value, tuple)]
        named += [metric["aggregation"] for metric in content["metric_list"]]
        assert len(named) == 4 + len(content["metric_list"]) >= 6
        for _, name in named:
            module, function = name.split(".")
            assert module == "stereopsis_functions"
            assert callable(getattr(functions, function))
        data = Path(content["dataset_kwargs"]["data_files"][content["test_split"]])
        docs = [json.loads(line) for line in data.read_text().splitlines()]
        assert [doc["id"] for doc in docs] == ["q0", "q1", "q2"]
        assert {doc["scene"] for doc in docs} == {str(scene)}
        assert documents.annotation_of(docs[1]) == question(1, task=task)
        assert functions.doc_to_text(docs[1]) == prompt_of(question(1, task=task))
        assert functions.doc_to_target(docs[1]) == "yes"


@pytest.mark.parametrize("task", ["sqa3d", "scanqa"])
def test_metrics_are_those_of_score(task, tmp_path):
    asked = [question(n, scene="ab"[n % 2], task=task) for n in range(4)]
    said = ["yes", "no", "Yes.", "ja"]
    items = [
        documents.process_results(documents.document(a, tmp_path, 1), [text])
        for a, text in zip(asked, said, strict=True)
    ]
    truth = summarise(score([Prediction(annotation=a, text=t) for a, t in zip(asked, said, strict=True)]))[task].overall
    assert set(items[0]) == set(truth)
    for metric, value in truth.items():
        assert documents.aggregate(metric)([item[metric] for item in items]) == pytest.approx(value.mean)
    assert truth["em"].mean == (75.0 if task == "sqa3d" else 50.0)


def test_tasks_that_have_no_such_form_are_refused(tmp_path):
    with pytest.raises(StereopsisError, match=r"only sqa3d and scanqa.* have that form"):
        documents.document(question(0, task="scanrefer"), tmp_path, 1)
    with pytest.raises(StereopsisError, match="no question of sqa3d"):
        write_tasks([], tmp_path, tasks=("sqa3d",))
    with pytest.raises(StereopsisError, match="no scene folder"):
        write_tasks([(question(0), tmp_path / "gone")], tmp_path)


@pytest.mark.parametrize(
    ("frames", "views", "expected"), [(5, 3, [0, 2, 4]), (3, 8, [0, 1, 2]), (4, 1, [0]), (1, 1, [0]), (0, 3, [])]
)
def test_views_are_spread(frames, views, expected):
    assert documents.view_indices(frames, views) == expected


def test_the_entry_point_names_what_is_there():
    section = (ROOT / "pyproject.toml").read_text().split('[project.entry-points."lmms_eval.models"]')[1].strip()
    name, value = section.splitlines()[0].split(" = ")
    assert name == "stereopsis"
    module, function = value.strip('"').split(":")
    assert getattr(importlib.import_module(module), function) is plugin.model_manifest


def test_the_manifest_names_the_class(stub, monkeypatch):
    registry = types.ModuleType("lmms_eval.models.registry_v2")
    registry.ModelManifest = lambda **fields: fields  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lmms_eval.models", types.ModuleType("lmms_eval.models"))
    monkeypatch.setitem(sys.modules, "lmms_eval.models.registry_v2", registry)
    manifest = plugin.model_manifest()
    module, name = manifest["simple_class_path"].rsplit(".", 1)
    assert getattr(sys.modules[module], name) is stub.StereopsisModel
    assert manifest["model_id"] == "stereopsis"


def test_every_scene_is_entered_once_and_order_is_kept(stub):
    entered: list[str] = []

    class Room:
        def __init__(self, scene: str) -> None:
            entered.append(scene)
            self.scene = scene

        def answer(self, asked, *, max_new_tokens):
            assert len(asked) <= 2
            return [f"{self.scene}:{each.prompt}:{max_new_tokens}" for each in asked]

    rng = np.random.default_rng(0)
    asked = [
        stub.RequestedQuestion(
            scene=f"s{rng.integers(3)}", task="sqa3d", prompt=f"p{n}", max_new_tokens=int(rng.choice([4, 9]))
        )
        for n in range(20)
    ]
    answers = stub.answer_by_scene(asked, Room, batch=2)
    assert answers == [f"{each.scene}:{each.prompt}:{each.max_new_tokens}" for each in asked]
    assert sorted(entered) == ["s0", "s1", "s2"]


def test_a_model_answers_as_the_engine_does(stub, tiny_base, tiny_rooms, tmp_path):
    """Through lmms-eval's requests, and directly."""
    from stereopsis.data.pack import Conversation
    from stereopsis.scenes.stored import read_scene

    scenes = sorted(path for path in tiny_rooms.iterdir() if path.is_dir())[:2]
    asked = [(a, path) for path in scenes for a in read_scene(path).annotations if a.task in ("sqa3d", "scanqa")]
    docs = [documents.document(annotation, path, 4) for annotation, path in asked]
    model = stub.StereopsisModel(pretrained=str(tiny_base), views=4, batch_size="auto", max_batch_size=8)
    model.task_dict = {"t": {"test": docs}}
    settings = {"max_new_tokens": 5, "temperature": 0}
    order = np.random.default_rng(0).permutation(len(docs)).tolist()
    requests = [
        types.SimpleNamespace(args=(documents.doc_to_text(docs[n]), settings, None, n, "t", "test")) for n in order
    ]
    answers = model.generate_until(requests)
    for place, n in enumerate(order):
        conversation = Conversation(id="x", task=docs[n]["task"], prompt=documents.doc_to_text(docs[n]), answer="")
        assert answers[place] == model.enter(docs[n]["scene"]).answer([conversation], max_new_tokens=5)[0]
    pictures = documents.doc_to_visual(docs[0])
    assert [picture.size for picture in pictures] == [(48, 48)] * 4

    sampled = [types.SimpleNamespace(args=("p", {"temperature": 0.7}, None, 0, "t", "test"))]
    with pytest.raises(StereopsisError, match="asks to sample"):
        model.generate_until(sampled)
    model.task_dict = {"t": {"test": [{"image": 1}]}}
    with pytest.raises(StereopsisError, match="this model needs a scene"):
        model.generate_until(sampled)
    for refused in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(StereopsisError, match="not supported"):
            refused([])
