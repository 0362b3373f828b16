import json
import math

import numpy as np
import pytest

from stereopsis.benchmarks import parse_llava_style, prompt_of, read_annotation_records, read_annotations
from stereopsis.benchmarks.scanrefer.classes import object_class, unique_or_multiple
from stereopsis.errors import StereopsisError

QUESTIONS = {
    "questions": [
        {
            "scene_id": "scene0050_00",
            "situation": "I face the sofa.",
            "alternative_situation": ["The sofa is ahead of me.", "I look at the sofa."],
            "question": "What's behind me?",
            "question_id": 7,
        },
        {"scene_id": "scene0050_00", "situation": "I sit.", "question": "Is it dark?", "question_id": 8},
    ]
}
ANSWERS = {
    "annotations": [
        {
            "scene_id": "scene0050_00",
            "question_id": 7,
            "answers": [{"answer": "a door", "answer_id": 1}],
            "position": {"x": 1.0, "y": 0.0, "z": 0.0},
            "rotation": {"_x": 0, "_y": 0, "_z": 0, "_w": 1},
        },
        {"scene_id": "scene0050_00", "question_id": 8, "answers": [{"answer": "yes"}]},
    ]
}
REFER = [
    {
        "scene_id": "s",
        "object_id": "5",
        "object_name": "office_chair",
        "ann_id": "0",
        "description": "the black chair.",
        "token": ["the", "black", "chair", "."],
    },
    {"scene_id": "s", "object_id": "5", "object_name": "office_chair", "ann_id": "1", "description": "it is black"},
    {"scene_id": "s", "object_id": "9", "object_name": "armchair", "ann_id": "0", "description": "a red chair"},
    {"scene_id": "s", "object_id": "2", "object_name": "table", "ann_id": "0", "description": "a table"},
    {"scene_id": "t", "object_id": "5", "object_name": "chair", "ann_id": "0", "description": "a chair"},
]
MULTI = [
    {"scene_id": "s", "object_ids": [3, 5], "ann_id": 0, "eval_type": "mt", "description": "both chairs"},
    {"scene_id": "s", "object_ids": [], "ann_id": 0, "eval_type": "zt_w_d", "description": "the pink chair"},
    {"scene_id": "s", "object_ids": [], "ann_id": 0, "eval_type": "zt_wo_d", "description": "the piano"},
    {"scene_id": "s", "object_ids": [3], "ann_id": 4, "eval_type": "st_w_d", "description": "the left chair"},
]
BOX = [0.0, 0.0, 0.5, 1.0, 1.0, 1.0]


def llava(id, asked, answer, scene="scene0050_00", metadata=None, **more):
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    return {"id": id, "video": f"scannet/{scene}", "conversations": turns, "metadata": metadata or {}, **more}


@pytest.fixture
def sqa3d(tmp_path):
    """Both of the authors' files in a folder."""
    (tmp_path / "v1_balanced_questions_test_scannetv2.json").write_text(json.dumps(QUESTIONS))
    (tmp_path / "v1_balanced_sqa_annotations_test_scannetv2.json").write_text(json.dumps(ANSWERS))
    return tmp_path


def written(path, content):
    path.write_text(json.dumps(content))
    return path


def test_sqa3d_joins_questions_and_answers(sqa3d):
    first, second = read_annotations("sqa3d", sqa3d)
    assert (first.id, first.type, first.answers, first.situation) == ("7", "what", ("a door",), "I face the sofa.")
    assert (second.id, second.type, second.text, second.scene_id) == ("8", "is", "Is it dark?", "scene0050_00")
    assert first.position is None
    assert first.yaw is None
    for name in ("questions", "sqa_annotations"):
        assert read_annotations("sqa3d", sqa3d / f"v1_balanced_{name}_test_scannetv2.json") == (first, second)


def test_sqa3d_training_gives_every_wording_of_the_situation(sqa3d):
    path = sqa3d / "v1_balanced_questions_test_scannetv2.json"
    found = read_annotations("sqa3d", path, split="train")
    assert [a.id for a in found] == ["7", "7#2", "7#3", "8"]
    assert [a.situation for a in found[:3]] == ["I face the sofa.", "The sofa is ahead of me.", "I look at the sofa."]


def test_sqa3d_places_are_turned_by_the_alignment_and_face_against_x(sqa3d):
    quarter = np.array([[0.0, -1, 0, 7], [1, 0, 0, 8], [0, 0, 1, 9], [0, 0, 0, 1]])
    first, second = read_annotations("sqa3d", sqa3d, alignments={"scene0050_00": quarter})
    assert first.position == pytest.approx((0.0, 1.0, 0.0))
    assert first.yaw == pytest.approx(-math.pi / 2)
    assert second.yaw is None


def test_sqa3d_llava_style_asks_in_the_same_words(sqa3d):
    official = read_annotations("sqa3d", sqa3d)
    records = [
        llava(int(a.id), f"<image> {prompt_of(a)}", a.answers[0], metadata={"question_type": a.type}) for a in official
    ]
    found = [r.annotation for r in parse_llava_style("sqa3d", records, "here")]
    assert [prompt_of(a) for a in found] == [prompt_of(a) for a in official]
    assert [(a.id, a.type, a.answers) for a in found] == [(a.id, a.type, a.answers) for a in official]
    wordings = [llava(7, f"<image> {text}", "x", metadata={"question_type": "is"}) for text in ("A b?", "C b?")]
    assert [r.annotation.id for r in parse_llava_style("sqa3d", wordings, "here")] == ["7", "7#2"]
    with pytest.raises(StereopsisError, match="here: entry 1: sqa3d '7' asks the same twice"):
        parse_llava_style("sqa3d", [wordings[0]] * 2, "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, a: a["annotations"].pop(), "question '8' has no answer in"),
        (lambda q, a: q["questions"].pop(), "answers 1 questions that .* does not ask, such as '8'"),
        (lambda q, a: q["questions"].append(q["questions"][0]), "entry 2: sqa3d '7' is there twice"),
        (lambda q, a: a["annotations"].append(a["annotations"][0]), "'7' is answered twice"),
        (lambda q, a: q["questions"][1].pop("question"), "entry 1: 'question' must be a text .* no such key"),
        (lambda q, a: a["annotations"][0].update(scene_id="other"), "'scene_id' must be 'scene0050_00'"),
        (lambda q, a: a["annotations"][0]["position"].update(x=math.nan), "position: 'x' must be a finite number"),
        (lambda q, a: a["annotations"][0].update(answers=[]), "answers: must be a list"),
    ],
)
def test_sqa3d_that_does_not_fit_together_is_refused(tmp_path, change, message):
    questions, answers = json.loads(json.dumps(QUESTIONS)), json.loads(json.dumps(ANSWERS))
    change(questions, answers)
    written(tmp_path / "v1_balanced_questions_test_scannetv2.json", questions)
    written(tmp_path / "v1_balanced_sqa_annotations_test_scannetv2.json", answers)
    with pytest.raises(StereopsisError, match=message):
        read_annotations("sqa3d", tmp_path)


def test_sqa3d_answers_must_lie_beside_the_questions(sqa3d):
    (sqa3d / "v1_balanced_sqa_annotations_test_scannetv2.json").unlink()
    with pytest.raises(StereopsisError, match="must lie beside it .* is not there"):
        read_annotations("sqa3d", sqa3d)


SCANQA = [
    {
        "question_id": "val-scene0050-0",
        "scene_id": "scene0050_00",
        "question": "Where is the sofa?",
        "answers": ["left", "by the door"],
        "object_ids": [4, 5],
        "object_names": ["sofa", "door"],
    },
    {
        "question_id": "val-scene0050-1",
        "scene_id": "scene0050_00",
        "question": "What color is it?",
        "answers": ["red"],
        "object_ids": [4],
        "object_names": ["sofa"],
    },
]


def test_scanqa_forms_agree(tmp_path):
    official = read_annotation_records("scanqa", written(tmp_path / "q.json", SCANQA))
    assert [r.annotation.type for r in official] == ["place", "color"]
    assert official[0].annotation.object_ids == (4, 5)
    assert official[0].names == ("scanqa_val-scene0050-0_0", "scanqa_val-scene0050-0_1")

    def asked(number):
        return f"<image> {SCANQA[number]['question']} Answer the question simply."

    with_answers = [
        llava(f"scanqa_val-scene0050-{n}_0", asked(n), q["answers"][0], metadata={"answers": q["answers"]})
        for n, q in enumerate(SCANQA)
    ]
    one_each = [
        llava(f"scanqa_val-scene0050-{n}_{i}", asked(n), answer, metadata={"question_type": "unknow"})
        for n, q in enumerate(SCANQA)
        for i, answer in enumerate(q["answers"])
    ]
    for form in (with_answers, one_each):
        found = parse_llava_style("scanqa", form, "here")
        for a, b in zip(found, official, strict=True):
            for field in ("id", "scene_id", "type", "text", "answers"):
                assert getattr(a.annotation, field) == getattr(b.annotation, field)
            assert set(a.names) <= set(b.names)
    with pytest.raises(StereopsisError, match=r"entry 1: scanqa 'scanqa_val-scene0050-0_0' is there twice"):
        parse_llava_style("scanqa", [with_answers[0]] * 2, "here")


def test_unique_means_no_other_annotated_object_of_the_class():
    objects = [("s", 1, "office_chair"), ("s", 1, "chair"), ("s", 2, "armchair"), ("s", 3, "couch"), ("t", 1, "chair")]
    assert unique_or_multiple(objects) == ["multiple", "multiple", "multiple", "unique", "unique"]
    # Everything outside the nineteen classes is one class.
    assert unique_or_multiple([("s", 1, "lamp"), ("s", 2, "backpack")]) == ["multiple", "multiple"]
    assert object_class("shower_curtain") == "shower curtain"
    assert object_class("shelf") == object_class("never heard of") == "others"


def test_scanrefer_and_scan2cap_from_one_file(tmp_path):
    path = written(tmp_path / "ScanRefer_filtered_val.json", REFER)
    said = read_annotation_records("scanrefer", tmp_path)
    assert [r.annotation.id for r in said] == ["s|5|0", "s|5|1", "s|9|0", "s|2|0", "t|5|0"]
    assert [r.annotation.type for r in said] == ["multiple", "multiple", "multiple", "unique", "unique"]
    assert [r.names for r in said] == [("0",), ("1",), ("2",), ("3",), ("4",)]
    assert said[0].annotation.object_ids == (5,)
    captions = read_annotation_records("scan2cap", path)
    assert [(r.annotation.id, r.names[0]) for r in captions] == [("s|5", "0"), ("s|9", "2"), ("s|2", "3"), ("t|5", "4")]
    assert captions[0].annotation.answers == ("the black chair.", "it is black")
    assert captions[0].annotation.type == "multiple"
    training = read_annotations("scan2cap", path, split="train")
    assert [a.answers for a in training] == [(each["description"],) for each in REFER]


def test_scanrefer_grouped_by_object_gives_the_same_and_boxes(tmp_path):
    grouped = [
        {"scene_id": "s", "object_id": 5, "object_name": "office_chair", "box": BOX, "descriptions": ["a", "b"]},
        {"scene_id": "s", "object_id": 2, "object_name": "table", "box": BOX, "descriptions": ["c"]},
    ]
    path = written(tmp_path / "boxes.json", grouped)
    said = read_annotation_records("scanrefer", path)
    assert [(r.annotation.id, r.annotation.text) for r in said] == [("s|5|0", "a"), ("s|5|1", "b"), ("s|2|0", "c")]
    assert {r.targets for r in said} == {(tuple(BOX),)}
    assert [r.annotation.answers for r in read_annotation_records("scan2cap", path)] == [("a", "b"), ("c",)]


def test_scanrefer_llava_style():
    record = llava(
        3,
        "<image>Identify the object according to the following description.\nThe black chair.",
        "<ground>",
        scene="s",
        metadata={"dataset": "scanrefer", "question_type": "multiple", "ann_id": "1", "object_id": "5"},
        box=BOX,
    )
    (found,) = parse_llava_style("scanrefer", [record], "here")
    assert (found.annotation.id, found.names, found.targets) == ("s|5|1", ("3",), (tuple(BOX),))
    assert found.annotation.text == "The black chair."
    assert found.annotation.type == "multiple"


def test_scan2cap_llava_style_has_query_boxes_and_references():
    metadata = {"question_type": "unique", "ann_id": "0", "object_id": "5"}
    asked = "<image> Given an object located at <coord> , describe the object in detail."
    val = llava(
        0, asked, "A chair.", scene="s", metadata=metadata, box_input=None, gt_box=BOX, annotations=["a chair.", "b"]
    )
    (found,) = parse_llava_style("scan2cap", [val], "here")
    assert (found.annotation.id, found.annotation.answers) == ("s|5", ("a chair.", "b"))
    assert (found.query, found.targets) == (None, (tuple(BOX),))
    train = llava(0, asked, "A chair.", scene="s", metadata=metadata, box_input=BOX, gt_box=BOX)
    (found,) = parse_llava_style("scan2cap", [train], "here")
    assert (found.annotation.id, found.annotation.answers, found.query) == ("s|5|0", ("A chair.",), tuple(BOX))


def test_multi3drefer_forms_agree(tmp_path):
    official = read_annotation_records("multi3drefer", written(tmp_path / "m.json", MULTI))
    assert [r.annotation.id for r in official] == ["s|3-5|0", "s|none|0", "s|none|0#2", "s|3|4"]
    assert [r.annotation.type for r in official] == ["mt", "zt_w_d", "zt_wo_d", "st_w_d"]
    records = [
        llava(
            number,
            f"<image>{prompt_of(r.annotation)}",
            "<ground>",
            scene="s",
            metadata={
                "question_type": r.annotation.type,
                "ann_id": MULTI[number]["ann_id"],
                "object_id": list(r.annotation.object_ids),
            },
            box=[BOX] * len(r.annotation.object_ids),
        )
        for number, r in enumerate(official)
    ]
    found = parse_llava_style("multi3drefer", records, "here")
    assert [r.annotation for r in found] == [r.annotation for r in official]
    assert [len(r.targets) for r in found] == [2, 0, 0, 1]
    with pytest.raises(StereopsisError, match="'box' must be one box for each of the 2 objects"):
        parse_llava_style("multi3drefer", [{**records[0], "box": [BOX]}], "here")


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("scanqa", [SCANQA[0], SCANQA[0]], r"entry 1: scanqa 'val-scene0050-0' is there twice \(first: entry 0\)"),
        ("scanqa", [{**SCANQA[0], "answers": [" "]}], "entry 0: 'answers' must be a list of texts, not all of them"),
        ("scanqa", [{**SCANQA[0], "object_ids": [1, "x"]}], "'object_ids' must be a list of whole numbers"),
        ("scanqa", [SCANQA[0], {**SCANQA[1], "question": 5}], "entry 1: 'question' must be a text .* found 5"),
        ("scanqa", [SCANQA[0], "words"], "entry 1 must be an object"),
        ("scanqa", [], "at least one entry"),
        ("scanqa", REFER, "is no scanqa annotation file .* its first entry has the keys"),
        ("scanrefer", [REFER[0], REFER[0]], r"entry 1: scanrefer 's\|5\|0' is there twice"),
        ("scan2cap", [REFER[0], REFER[0]], r"entry 1: scan2cap 's\|5\|0' is there twice"),
        ("scanrefer", [{**REFER[0], "object_id": "five"}], "'object_id' must be a whole number >= 0, found 'five'"),
        ("scanrefer", [{**REFER[0], "eval_type": "both"}], "'eval_type' must be 'unique' or 'multiple', found 'both'"),
        ("scanrefer", [{**REFER[0], "box": [1, 2, 3]}], "'box' must be six finite numbers"),
        ("scanrefer", [{**REFER[0], "box": [0, 0, 0, 1, -1, 1]}], "'box' must be six finite numbers"),
        ("multi3drefer", [MULTI[0], MULTI[0]], r"entry 1: multi3drefer 's\|3-5\|0' is there twice"),
        ("multi3drefer", [{**MULTI[0], "eval_type": "all"}], "'eval_type' must be one of zt_w_d"),
        ("multi3drefer", SCANQA[:1], "'object_ids'|'description' must be|'eval_type' must be"),
        ("sqa3d", SCANQA, "is no sqa3d annotation file"),
    ],
)
def test_bad_entries_are_named(tmp_path, task, content, message):
    with pytest.raises(StereopsisError, match=message) as caught:
        read_annotations(task, written(tmp_path / "file.json", content))
    assert "file.json" in str(caught.value)


def test_damaged_files_are_named(tmp_path):
    whole = json.dumps(SCANQA)
    cut = tmp_path / "cut.json"
    cut.write_text(whole[: len(whole) // 2])
    with pytest.raises(
        StereopsisError, match=r"cut.json: is no valid JSON: .* line 1, column \d+; the file may be cut"
    ):
        read_annotations("scanqa", cut)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\x93NUMPY\xff\xfe")
    with pytest.raises(StereopsisError, match=r"binary.json: is no UTF-8 text"):
        read_annotations("scanqa", binary)
    with pytest.raises(StereopsisError, match=r"nothing.json: cannot be read"):
        read_annotations("scanqa", tmp_path / "nothing.json")
    with pytest.raises(StereopsisError, match=r"holds no annotations of scanqa; expected ScanQA_v1.0_val.json or"):
        read_annotations("scanqa", tmp_path)
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 200_000)
    with pytest.raises(StereopsisError, match=r"deep.json"):
        read_annotations("scanqa", deep)
    with pytest.raises(StereopsisError, match=r"no benchmark 'scanq' \(did you mean 'scanqa'\?\)"):
        read_annotations("scanq", cut)


def test_an_answer_of_ten_megabytes_is_read(tmp_path):
    huge = "word " * 2_000_000
    (found,) = read_annotations("scanqa", written(tmp_path / "q.json", [{**SCANQA[0], "answers": [huge]}]))
    assert found.answers == (huge,)


def test_llava_records_without_their_parts_are_refused():
    record = llava(1, "<image> Why? Answer the question simply.", "so")
    for change, message in (
        ({"conversations": [{"from": "human", "value": "x"}]}, "one turn of 'human' and one of 'gpt'"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "'from' must be 'human' and then 'gpt'"),
        ({"video": None}, "'video' must be a text"),
        ({"id": None}, "'id' must be an id"),
        ({"metadata": []}, "'metadata' must be an object"),
    ):
        with pytest.raises(StereopsisError, match=f"here: entry 0.*{message}"):
            parse_llava_style("scanqa", [{**record, **change}], "here")
    nothing = llava(1, "<image> Answer the question simply.", "so")
    with pytest.raises(StereopsisError, match="a question or description around"):
        parse_llava_style("scanqa", [nothing], "here")
