"""The real annotation files, whole: counts, types, what the truth scores and what answers in disorder score."""

import csv
import json
from collections import Counter

import numpy as np
import pytest

from stereopsis.benchmarks import Prediction, read_annotation_records, read_annotations, score, summarise
from stereopsis.benchmarks.scanrefer.classes import unique_or_multiple
from stereopsis.benchmarks.scoring.boxes import query_box
from stereopsis.geometry.boxes import iou

AWAY = np.array([50.0, 0, 0, 0, 0, 0])


@pytest.fixture(scope="module")
def folder(shared_data):
    """A function that gives a folder of the real data."""

    def find(name):
        if not (shared_data / name).is_dir():
            pytest.skip(f"{name} is not on this machine")
        return shared_data / name

    return find


def means(predictions, task, **options):
    summary = summarise(score(predictions, **options), n=20)[task]
    return summary, {name: interval.mean for name, interval in summary.overall.items()}


def rotated(values, by=1):
    """The same values, each at another place."""
    return [*values[by:], *values[:by]]


def test_sqa3d_loads_and_the_truth_scores_100(folder):
    asked = read_annotations("sqa3d", folder("sqa3d"))
    assert Counter(a.type for a in asked) == {
        "what": 1147, "is": 652, "how": 465, "can": 338, "which": 351, "others": 566
    }  # fmt: skip
    oracle = [Prediction(annotation=a, text=a.answers[0]) for a in asked]
    summary, values = means(oracle, "sqa3d")
    assert (summary.count, summary.scene_count) == (3519, 67)
    assert values == {"em": 100.0, "em_r": 100.0}
    assert {each["em"].mean for each in summary.by_type.values()} == {100.0}
    # Answers in disorder are right as often as two answers drawn at random agree.
    order = np.random.default_rng(0).permutation(len(asked))
    disordered = [Prediction(annotation=a, text=asked[i].answers[0]) for a, i in zip(asked, order, strict=True)]
    counts = np.array(list(Counter(a.answers[0].lower() for a in asked).values())) / len(asked)
    assert means(disordered, "sqa3d")[1]["em"] == pytest.approx(100 * float((counts**2).sum()), abs=2.0)
    silent = [Prediction(annotation=a) for a in asked]
    assert means(silent, "sqa3d")[1] == {"em": 0.0, "em_r": 0.0}
    assert means(silent, "sqa3d", protocols={"sqa3d": "released"})[1] == {"em": 0.0, "em_r": 100.0}


def test_sqa3d_agents_sit_on_what_they_say_they_sit_on(folder):
    path = folder("scannet_meta") / "scans_axis_alignment_matrices.json"
    matrices = {k: np.array(v).reshape(4, 4) for k, v in json.loads(path.read_text()).items()}
    places = {a.scene_id: [] for a in read_annotations("sqa3d", folder("sqa3d"))}
    for record in json.loads((folder("scanrefer") / "derived_scanrefer_val_boxes.json").read_text()):
        if record["scene_id"] in places:
            places[record["scene_id"]].append((record["object_name"].replace("_", " "), np.array(record["box"][:2])))
    near, ahead = [], []
    for asked in read_annotations("sqa3d", folder("sqa3d"), alignments=matrices):
        before, _, after = asked.situation.partition("facing ")
        seats = [place for name, place in places[asked.scene_id] if f"sitting on a {name}" in before]
        near += [min(np.hypot(*(place - asked.position[:2])) for place in seats)] if seats else []
        faced = [place for name, place in places[asked.scene_id] if after.startswith((f"a {name}", f"the {name}"))]
        if len(faced) == 1:
            offset = faced[0] - asked.position[:2]
            ahead.append(np.cos(np.arctan2(offset[1], offset[0]) - asked.yaw))
    assert len(near) > 20
    assert np.median(near) < 0.5
    assert len(ahead) > 100
    assert np.median(ahead) > 0.9


def test_scanqa_loads_and_the_truth_scores_the_maximum(folder):
    asked = read_annotations("scanqa", folder("scanqa"))
    assert len({a.id for a in asked}) == len(asked) == 4675
    assert len({a.scene_id for a in asked}) == 71
    assert set(Counter(a.type for a in asked)) == {"place", "number", "color", "object nature", "object", "other"}
    summary, values = means([Prediction(annotation=a, text=a.answers[0]) for a in asked], "scanqa")
    assert {name: values[name] for name in ("em", "rouge_l")} == {"em": 100.0, "rouge_l": 100.0}
    assert values["bleu_1"] == pytest.approx(100.0, abs=1e-4)
    assert 200 < values["cider"] < 1000
    assert "meteor" in summary.unavailable
    answers = rotated([a.answers[0] for a in asked], 1000)
    disorder = means([Prediction(annotation=a, text=t) for a, t in zip(asked, answers, strict=True)], "scanqa")[1]
    assert disorder["cider"] < 0.15 * values["cider"]
    assert disorder["em"] < 10
    assert set(means([Prediction(annotation=a) for a in asked], "scanqa")[1].values()) == {0.0}


def test_scanrefer_loads_and_the_truth_scores_100(folder):
    records = read_annotation_records("scanrefer", folder("scanrefer") / "derived_scanrefer_val_boxes.json")
    assert len(records) == 9508
    assert len({(r.annotation.object_ids, r.annotation.scene_id) for r in records}) == 2068
    assert len({r.annotation.scene_id for r in records}) == 141
    kinds = Counter(r.annotation.type for r in records)
    assert kinds == {"unique": 1845, "multiple": 7663}
    boxes = np.array([r.targets[0] for r in records])
    oracle = [
        Prediction(annotation=r.annotation, boxes=boxes[[i, i - 1]], scores=np.array([0.9, 0.1]), targets=boxes[[i]])
        for i, r in enumerate(records)
    ]
    summary, values = means(oracle, "scanrefer")
    assert values == {"acc@0.25": 100.0, "acc@0.5": 100.0}
    assert set(summary.by_type) == {"unique", "multiple"}
    far = [
        Prediction(annotation=p.annotation, boxes=p.boxes + AWAY, scores=p.scores, targets=p.targets) for p in oracle
    ]
    assert means(far, "scanrefer")[1] == {"acc@0.25": 0.0, "acc@0.5": 0.0}
    # Boxes of other descriptions of the same scene are right as often as two of them, drawn at random, overlap.
    scenes = np.array([r.annotation.scene_id for r in records])
    order, floor = np.arange(len(records)), np.zeros(len(records))
    rng = np.random.default_rng(0)
    for scene in np.unique(scenes):
        here = np.flatnonzero(scenes == scene)
        order[here] = rng.permutation(here)
        floor[here] = (iou(boxes[here], boxes[here]) > 0.5).mean(axis=1)
    disordered = [
        Prediction(annotation=r.annotation, boxes=boxes[[j]], scores=np.ones(1), targets=boxes[[i]])
        for i, (r, j) in enumerate(zip(records, order, strict=True))
    ]
    assert means(disordered, "scanrefer")[1]["acc@0.5"] == pytest.approx(100 * floor.mean(), abs=1.0)
    assert 2 < 100 * floor.mean() < 20


def test_scanrefer_native_records_load(folder):
    found = read_annotations("scanrefer", folder("scanrefer") / "csvg_scanrefer_val_1000_native_format.json")
    assert len(found) == 1000


def test_unique_and_multiple_agree_with_flags_that_others_computed(folder):
    records = json.loads((folder("scanrefer") / "derived_scanrefer_val_boxes.json").read_text())
    objects = [(r["scene_id"], r["object_id"], r["object_name"]) for r in records]
    kinds = {key[:2]: kind for key, kind in zip(objects, unique_or_multiple(objects), strict=True)}
    with (folder("scanrefer") / "vlmgrounder_scanrefer_250_unique_multiple.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    flagged = {(r["scan_id"], int(r["target_id"])): r["is_unique_scanrefer"] == "True" for r in rows}
    assert len(rows) == 250
    # These flags count every object of the scan, also those that no description of the file speaks of: never can an
    # object be unique there and not here.
    assert all(kinds[key] == "unique" for key, unique in flagged.items() if unique)
    assert sum(kinds[key] == "unique" for key, unique in flagged.items() if not unique) == 4
    assert sum(flagged.values()) > 30


def test_scan2cap_loads_and_strict_empties_captions_exactly_where_the_box_misses(folder):
    records = read_annotation_records("scan2cap", folder("scanrefer") / "derived_scanrefer_val_boxes.json")
    assert len(records) == 2068
    assert sum(len(r.annotation.answers) for r in records) == 9508
    boxes = np.array([r.targets[0] for r in records])
    shift = np.random.default_rng(0).uniform(0, 0.6, len(records))
    proposals = boxes + boxes[:, 3:4] * shift[:, None] * np.array([1.0, 0, 0, 0, 0, 0])
    said = [r.annotation.answers[0] for r in records]

    def captioned(texts):
        return [
            Prediction(annotation=r.annotation, text=text, boxes=proposals[[i]], targets=boxes[[i]])
            for i, (r, text) in enumerate(zip(records, texts, strict=True))
        ]

    # A box that is shifted by a share s of its own width overlaps by (1 - s) / (1 + s): half from s = 1/3.
    near = shift < 1 / 3
    assert [query_box(proposals[[i]], boxes[i]).iou >= 0.5 for i in range(len(boxes))] == near.tolist()
    strict = score(captioned(said))
    emptied = score(captioned([text if kept else "" for text, kept in zip(said, near, strict=True)]))
    released = score(captioned(said), protocols={"scan2cap": "released"})
    assert [s.scores for s in strict] == [s.scores for s in emptied]
    differ = [a.scores["rouge_l@0.5"] != b.scores["rouge_l@0.5"] for a, b in zip(strict, released, strict=True)]
    assert differ == (~near).tolist()
    assert summarise(released, n=20)["scan2cap"].overall["rouge_l@0.5"].mean == pytest.approx(100.0)
