"""Protocols and METEOR in an evaluation: what is asked, what is kept, and what may stand in one folder."""

import json
import shutil

import numpy as np
import pytest

from stereopsis.benchmarks import Prediction, benchmark_named, benchmark_names, score
from stereopsis.benchmarks.files.matching import require_captions, score_file
from stereopsis.benchmarks.files.predictions import read_predictions
from stereopsis.benchmarks.files.result_files import read_result
from stereopsis.benchmarks.scoring.comparison import compare_samples
from stereopsis.benchmarks.scoring.java_tools import METEOR_COUNTS, meteor_of_counts
from stereopsis.errors import RunFolderError, StereopsisError
from stereopsis.evaluation import evaluate_run
from stereopsis.evaluation.predictors import DummyPredictor, ModelPredictor
from stereopsis.evaluation.questions import parse_protocols, questions, scan_alignments
from stereopsis.evaluation.records import read_results
from stereopsis.evaluation.resumable import run_evaluation

TASKS = benchmark_names()
CAPTIONS = ("a white cube .", "it is a cube")


@pytest.fixture
def captioned(hand_scene):
    """Objects at x = 0, 10, 20; candidates fit the first, overlap the second by a third (IoU 1/3), miss the third."""
    ask = [{"task": "scan2cap", "answers": CAPTIONS, "object_ids": (i,)} for i in (1, 2, 3)]
    return hand_scene("s", ask, proposals=(0.1, 10.5))


def counted(texts, references):
    """Stands for METEOR: counts that differ by text, as numbers of words do."""
    counts = np.zeros((len(texts), METEOR_COUNTS))
    counts[:, 0] = [len(text.split()) for text in texts]
    counts[:, 1] = [len(accepted[0].split()) for accepted in references]
    counts[:, [4, 5, 21, 22]] = np.minimum(counts[:, [0]], counts[:, [1]])
    counts[:, 20] = 1.0
    return counts


def test_strict_leaves_captions_empty_exactly_where_no_candidate_fits_and_released_asks_for_all(captioned, tmp_path):
    said, boxes = {}, {}
    for rules in ("strict", "released"):
        run_evaluation(DummyPredictor(protocols={"scan2cap": rules}), questions([captioned], TASKS), tmp_path / rules)
        records, summary = read_results(tmp_path / rules)
        assert {record["protocol"] for record in records} == {rules}
        assert summary["settings"]["protocols"] == {"scan2cap": rules}
        assert summary["tasks"]["scan2cap"]["protocol"] == rules
        said[rules] = [record["prediction"] for record in records]
        boxes[rules] = [[box[0] for box in record["boxes"]] for record in records]
    assert said == {"strict": ["this is a chair .", "", ""], "released": ["this is a chair ."] * 3}
    assert boxes == {"strict": [[0.1], [], []], "released": [[0.1], [10.5], [0.1]]}  # the third: none is better


def test_a_model_is_asked_for_every_caption_under_released(trained, config, rooms):
    scene = rooms[0].replace(proposals=rooms[0].proposals[:1])  # one candidate for all objects
    captions = [a for a in scene.annotations if a.task == "scan2cap"]
    pack = ModelPredictor(trained, config).prepare(scene)
    silent = {}
    for rules in ("strict", "released"):
        passes = ModelPredictor(trained, config, protocols={"scan2cap": rules}).passes(scene, captions, pack)
        outcomes = [outcome for each in passes for outcome in each.run()]
        assert len(outcomes) == len(captions)
        assert all(isinstance(outcome, Prediction) for outcome in outcomes)
        silent[rules] = sum(not len(outcome.boxes) for outcome in outcomes)
    assert silent["strict"] > 0
    assert silent["released"] == 0


def test_another_protocol_never_mixes(captioned, tmp_path):
    run_evaluation(DummyPredictor(), questions([captioned], TASKS), tmp_path)
    with pytest.raises(RunFolderError, match=r"protocols\.scan2cap: strict there, released now"):
        run_evaluation(DummyPredictor(protocols={"scan2cap": "released"}), questions([captioned], TASKS), tmp_path)


def test_records_of_released_suffice_for_strict_but_not_the_other_way_round(captioned, tmp_path):
    """Rescoring what was written gives what an evaluation under that protocol gives."""
    from stereopsis.benchmarks.files.annotation_files import AnnotationRecord

    asked = [AnnotationRecord(annotation=annotation) for annotation in captioned.annotations]
    for rules in ("strict", "released"):
        run_evaluation(DummyPredictor(protocols={"scan2cap": rules}), questions([captioned], TASKS), tmp_path / rules)
    expected = read_result(tmp_path / "strict").samples["scan2cap"]
    for rules in ("strict", "released"):
        file = read_predictions(tmp_path / rules / "records.jsonl", "scan2cap")
        require_captions(file, "scan2cap", "strict")
        scored = score_file(file, asked, score)
        assert [s.scores for s in scored.samples] == [s.scores for s in expected]
    with pytest.raises(StereopsisError, match=r"2 objects were never captioned .*--protocol scan2cap=released"):
        require_captions(read_predictions(tmp_path / "strict" / "records.jsonl", "scan2cap"), "scan2cap", "released")


def test_an_empty_answer_matches_under_sqa3ds_released_rule_alone(hand_scene, tmp_path):
    class Silent(DummyPredictor):
        def _answer(self, annotation, scene, boxes):
            return Prediction(annotation=annotation)

    scene = hand_scene("s", [{"task": "sqa3d", "text": "What?", "situation": "I sit.", "answers": ("two",)}])
    values = {}
    for rules in ("strict", "released"):
        predictor = Silent(protocols={"sqa3d": rules})
        tasks = run_evaluation(predictor, questions([scene], TASKS), tmp_path / rules)
        values[rules] = [tasks["sqa3d"]["overall"][name]["mean"] for name in ("em", "em_r")]
    assert values == {"strict": [0.0, 0.0], "released": [0.0, 100.0]}


def test_protocols_are_named_like_files():
    assert parse_protocols(["scan2cap=released", "SQA3D=released"]) == {"scan2cap": "released", "sqa3d": "released"}
    for word, message in {
        "scan2cap": "expected BENCHMARK=NAME",
        "scan2cap=release": r"no protocol 'release' \(did you mean 'released'\?\)",
        "scan2cop=released": r"unknown benchmark 'scan2cop' \(did you mean 'scan2cap'\?\)",
        "sqa3d,scan2cap=released": "names several benchmarks",
    }.items():
        with pytest.raises(StereopsisError, match=message):
            parse_protocols([word])
    with pytest.raises(StereopsisError, match="two protocols are named for sqa3d"):
        parse_protocols(["sqa3d=strict", "sqa3d=released"])
    with pytest.raises(StereopsisError, match="no protocol 'loose'"):
        DummyPredictor(protocols={"scanqa": "loose"})


def test_meteor_is_kept_by_record_summed_over_the_corpus_and_compared(captioned, tmp_path, monkeypatch):
    monkeypatch.setattr("stereopsis.benchmarks.scoring.text.meteor_counts", counted)
    tasks = run_evaluation(DummyPredictor(), questions([captioned], TASKS), tmp_path, meteor=True)
    records, summary = read_results(tmp_path)
    counts = np.array([record["meteor_counts"] for record in records])
    assert counts.shape == (3, METEOR_COUNTS)
    value = 100 * float(meteor_of_counts(counts.sum(axis=0)))
    assert value > 0
    assert tasks["scan2cap"]["overall"]["meteor@0.5"]["mean"] == pytest.approx(value, abs=1e-4)
    assert summary["tasks"]["scan2cap"]["unavailable"] == {}
    samples = read_result(tmp_path).samples["scan2cap"]
    metric = next(each for each in benchmark_named("scan2cap").metrics if each.meteor)
    assert compare_samples(samples, samples, [metric], n=20).overall["meteor@0.5"].first == pytest.approx(value)


@pytest.mark.parametrize(("meteor", "reason"), [(True, "no 'java' on the PATH"), (False, "not asked for")])
def test_without_meteor_all_else_is_there_and_the_summary_says_why(captioned, tmp_path, monkeypatch, meteor, reason):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    pytest.importorskip("pycocoevalcap.meteor")
    tasks = run_evaluation(DummyPredictor(), questions([captioned], TASKS), tmp_path, meteor=meteor)
    assert reason in tasks["scan2cap"]["unavailable"]["meteor@0.5"]
    assert "cider@0.5" in tasks["scan2cap"]["overall"]
    assert "meteor@0.5" not in tasks["scan2cap"]["overall"]


def test_an_answer_of_ten_megabytes_loses_nothing(hand_scene, tmp_path):
    """It is kept whole and scored; METEOR, which could not align it, says so."""
    pytest.importorskip("pycocoevalcap.meteor")

    class Babbles(DummyPredictor):
        def _answer(self, annotation, scene, boxes):
            long = annotation.id.endswith("-1")
            return Prediction(annotation=annotation, text="chair " * 1_750_000 if long else "a chair")

    ask = [{"task": "scanqa", "text": f"What is {i}?", "answers": ("a chair", "chair")} for i in range(3)]
    tasks = run_evaluation(Babbles(), questions([hand_scene("s", ask)], TASKS), tmp_path, meteor=True)
    assert tasks["scanqa"]["overall"]["em"]["mean"] == pytest.approx(200 / 3, abs=1e-4)
    assert tasks["scanqa"]["overall"]["rouge_l"]["mean"] > 60
    assert "cannot align text 1, which has 10500000 characters" in tasks["scanqa"]["unavailable"]["meteor"]
    records = read_results(tmp_path)[0]
    assert [len(record["prediction"]) for record in records] == [7, 10_500_000, 7]


def test_only_scannets_own_alignment_places_sqa3ds_agents(hand_scene):
    turned = np.diag([-1.0, -1.0, 1.0, 1.0])
    scenes = [
        hand_scene("none", []),
        hand_scene("given", []).replace(T_aligned_world=turned),
        hand_scene("guessed", []).replace(T_aligned_world=turned, provenance={"alignment": {"method": "estimated"}}),
    ]
    assert {name: matrix.tolist() for name, matrix in scan_alignments(scenes).items()} == {"given": turned.tolist()}


def test_an_annotation_files_agents_stand_where_the_scans_own_matrix_puts_them(hand_scene, tmp_path):
    """A quarter turn: the file's (1, 2, 0.5), looking along -x there, is (-2, 1, 0.5), looking along -y."""
    quarter = np.array([[0.0, -1, 0, 7], [1, 0, 0, 8], [0, 0, 1, 9], [0, 0, 0, 1]])
    names = ("turned", "plain")
    asked = [{"question_id": i, "scene_id": s, "question": "What?", "situation": "I sit."} for i, s in enumerate(names)]
    pose = {"position": {"x": 1, "y": 2, "z": 0.5}, "rotation": {"_x": 0, "_y": 0, "_z": 0, "_w": 1}}
    said = [{"question_id": i, "scene_id": s, "answers": [{"answer": "a"}], **pose} for i, s in enumerate(names)]
    file = tmp_path / "v1_balanced_questions_test_scannetv2.json"
    file.write_text(json.dumps({"questions": asked}))
    (tmp_path / "v1_balanced_sqa_annotations_test_scannetv2.json").write_text(json.dumps({"annotations": said}))
    scenes = [hand_scene("turned", []).replace(T_aligned_world=quarter), hand_scene("plain", [])]
    found = evaluate_run._annotated(scenes, evaluate_run.Request(model="dummy", annotations={"sqa3d": file}))
    turned, plain = (scene.annotations[0] for scene in found)
    assert turned.position == pytest.approx((-2.0, 1.0, 0.5))
    assert turned.yaw == pytest.approx(-np.pi / 2)
    assert (plain.position, plain.yaw) == (None, None)
