"""Trackers get every loss under our names, and the pictures; what is not installed is said before any work."""

import json
import sys
import types

import pytest
from PIL import Image

from stereopsis.errors import MissingExtraError
from stereopsis.experiment import train_and_draw
from stereopsis.training.preflight import check_extras
from stereopsis.training.trackers import report_pictures


def test_tensorboard_holds_losses_and_pictures_in_the_runs_folder(make_recipe, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = make_recipe(training__steps=2, training__report_to=["tensorboard"])
    train_and_draw(recipe, tmp_path / "run", pictures=1)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = {key for line in logged for key in line if key.startswith("loss/")}
    assert losses
    for key in losses:
        shown = {event.step: event.value for event in events.Scalars(f"train/{key}")}
        assert shown == pytest.approx({line["step"]: line[key] for line in logged if key in line})
    parts = {name.rpartition("/")[2] for name in events.Tags()["images"]}
    assert parts == {"target", "reconstruction"}
    assert {name.partition("/")[0] for name in events.Tags()["images"]} == {"masked_view", "birds_eye"}


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named_with_the_command(make_recipe, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"training\.report_to needs the package '{name}'.*pip install {name}"):
        check_extras(make_recipe(training__report_to=[name]), "Training")


class Recorder(types.ModuleType):
    """Stands for a tracker's package: notes what is called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple] = []
        self.run = object()
        self.Image = lambda path: ("image", path.rpartition("/")[2])

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **options):
            self.calls.append((name, args, options))
            return Run()

        return call


class Run:
    """A run of mlflow's."""

    info = types.SimpleNamespace(run_id="r1")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.fixture
def drawn(tmp_path):
    folder = tmp_path / "first" / "pictures"
    folder.mkdir(parents=True)
    for part in ("a", "b"):
        Image.new("RGB", (4, 4)).save(folder / f"{part}.png")
    entry = {"kind": "birds_eye", "scene_id": "room", "target": "a.png", "reconstruction": "b.png"}
    (folder / "pictures.json").write_text(json.dumps([entry]))
    return tmp_path / "first"


NAMES = ["birds_eye/0-room/target", "birds_eye/0-room/reconstruction"]


def test_wandb_gets_the_pictures_into_the_open_run(drawn, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", Recorder("wandb"))
    report_pictures(["wandb"], drawn, 7)
    ((name, (logged,), _),) = sys.modules["wandb"].calls
    assert name == "log"
    assert logged == dict(zip(NAMES, [("image", "a.png"), ("image", "b.png")], strict=True))


def test_trackio_gets_them_into_the_closed_run(drawn, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", Recorder("trackio"))
    report_pictures(["trackio"], drawn, 7)
    opened, logged, closed = sys.modules["trackio"].calls
    assert opened == ("init", (), {"project": "stereopsis", "name": "first", "resume": "allow"})
    assert list(logged[1][0]) == NAMES
    assert logged[2] == {"step": 7}
    assert closed[0] == "finish"


def test_mlflow_gets_them_as_files_of_its_last_run(drawn, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", Recorder("mlflow"))
    report_pictures(["mlflow"], drawn, 7)
    calls = sys.modules["mlflow"].calls
    assert [call[0] for call in calls] == ["last_active_run", "start_run", "log_artifact", "log_artifact"]
    assert calls[1][2] == {"run_id": "r1"}
    assert {call[2]["artifact_path"] for call in calls[2:]} == {"pictures/birds_eye/0-room"}


def test_without_pictures_nothing_is_sent(tmp_path):
    report_pictures(["wandb"], tmp_path, 1)
