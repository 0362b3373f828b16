"""Processed files: recipes and commands read them through one door, and both see the same."""

import copy
import json

import pytest
from video3dllm_folder import BOXES_A, BOXES_B, PROPOSALS_B, A, B, processed, sample, write_json

from stereopsis.benchmarks import prompt_of, read_annotation_records, target_of
from stereopsis.benchmarks.files.processed import ProcessedFiles
from stereopsis.benchmarks.scan2cap import prompt as scan2cap
from stereopsis.benchmarks.scanrefer import prompt as scanrefer
from stereopsis.benchmarks.sqa3d.reader import split_situation
from stereopsis.errors import SceneError, StereopsisError

FILES = processed()


@pytest.fixture
def read(tmp_path):
    """A function that writes records into a data folder and reads them as recipes do."""

    def read(records, name="x"):
        write_json(tmp_path / "processed" / f"{name}_llava_style.json", records)
        return ProcessedFiles(tmp_path).records(name)

    return read


ANSWERED_TWICE = [
    sample(
        f"scanqa_val-scene0011-0_{number}",
        B,
        "<image> What color is the chair? Answer the question simply.",
        answer,
        "scanQA",
        "unknow",
    )
    for number, answer in enumerate(("dark brown", "brown"))
]


@pytest.mark.parametrize("name", [*FILES, "scanqa_train"])
def test_recipes_and_commands_read_the_same(read, tmp_path, name):
    by_recipe = read({**FILES, "scanqa_train": ANSWERED_TWICE}[name], name)
    by_command = read_annotation_records(name.split("_")[0], tmp_path / "processed" / f"{name}_llava_style.json")
    assert by_recipe == by_command


def test_a_file_with_one_record_per_answer_gives_one_question_of_all_answers(read):
    (record,) = read(ANSWERED_TWICE)
    assert record.annotation.answers == ("dark brown", "brown")
    assert (record.annotation.id, record.annotation.type) == ("val-scene0011-0", "color")
    assert record.names == ("scanqa_val-scene0011-0_0", "scanqa_val-scene0011-0_1")


def test_ids_are_those_of_the_authors_files(read):
    (found,) = read(FILES["scanrefer_vg_train"])
    assert found.annotation.id == f"{A}|1|4"
    assert [record.annotation.id for record in read(FILES["scan2cap_val"])] == [f"{B}|0", f"{B}|2"]
    assert [record.annotation.id for record in read(FILES["multi3drefer_val"])] == [f"{B}|2-5|0", f"{B}|none|1"]


def test_a_wording_may_come_twice_in_training_alone(read, tmp_path):
    twice = [FILES["sqa3d_train"][0]] * 2
    assert [record.annotation.id for record in read(twice, "sqa3d_train")] == ["220602000002", "220602000002#2"]
    path = tmp_path / "processed" / "sqa3d_train_llava_style.json"
    assert len(read_annotation_records("sqa3d", path)) == 2
    with pytest.raises(StereopsisError, match="sqa3d '220602000002' asks the same twice"):
        read(twice, "sqa3d_test")
    with pytest.raises(StereopsisError, match="sqa3d '220602000002' asks the same twice"):
        read_annotation_records("sqa3d", tmp_path / "processed" / "sqa3d_test_llava_style.json")


@pytest.mark.parametrize("name", FILES)
def test_the_benchmark_s_prompt_gives_the_file_s_words_again(read, name):
    for given, record in zip(FILES[name], read(FILES[name]), strict=True):
        asked, answered = (turn["value"] for turn in given["conversations"])
        assert prompt_of(record.annotation) == asked.removeprefix("<image>").removeprefix(" ")
        if "annotations" not in given and "answers" not in given["metadata"]:
            assert target_of(record.annotation) == answered


def test_questions(read):
    first, second, third = (record.annotation for record in read(FILES["sqa3d_train"], "sqa3d_train"))
    assert (first.id, second.id, third.id) == ("220602000002", "220602000002#2", "220602000002#3")
    assert second.situation == "I stood up. It is late."
    assert second.text == "What is in front of me?"
    assert (second.type, second.answers, second.scene_id) == ("what", ("piano",), A)
    (question,) = (record.annotation for record in read(FILES["scanqa_val"]))
    assert question.text == "What color is the chair?"
    assert (question.task, question.type) == ("scanqa", "color")
    assert question.answers == ("dark brown", "brown")


def test_captions(read):
    (record,) = read(FILES["scan2cap_train"])
    assert record.annotation.text == ""
    assert record.annotation.answers == ("A black chair.",)
    assert record.annotation.object_ids == (1,)
    assert record.targets == (tuple(BOXES_A[1]),)
    assert record.query == tuple(BOXES_A[1])
    matched, missed = read(FILES["scan2cap_val"])
    assert matched.annotation.answers == ("a chair.", "the only chair.")
    assert matched.query == tuple(PROPOSALS_B[0])
    assert matched.targets == (tuple(BOXES_B[0]),)
    assert missed.query is None


def test_grounding(read):
    (record,) = read(FILES["scanrefer_vg_train"])
    assert record.annotation.text == "The chair is black. it is to the right."
    assert (record.annotation.object_ids, record.annotation.type) == ((1,), "multiple")
    both, none = read(FILES["multi3drefer_val"])
    assert (both.annotation.text, both.annotation.object_ids) == ("Both lamps.", (2, 5))
    assert both.targets == (tuple(BOXES_B[2]), tuple(BOXES_B[5]))
    assert (none.annotation.object_ids, none.annotation.type, none.annotation.answers) == ((), "zt_w_d", ())
    assert none.targets == ()


def test_benchmarks_may_be_mixed_and_ids_of_a_benchmark_do_not_collide(read, tmp_path):
    every = read([record for name in ("scanqa_val", "sqa3d_train", "multi3drefer_val") for record in FILES[name]])
    assert len({(record.annotation.task, record.annotation.id) for record in every}) == len(every) == 6
    path = tmp_path / "processed" / "x_llava_style.json"
    for task in ("scanqa", "sqa3d", "multi3drefer"):
        mine = tuple(record for record in every if record.annotation.task == task)
        assert read_annotation_records(task, path) == mine
    with pytest.raises(StereopsisError, match="its 6 records are of other benchmarks than scanrefer"):
        read_annotation_records("scanrefer", path)


def test_a_line_break_after_the_image_token_is_no_part_of_the_question(read):
    records = copy.deepcopy(FILES["scanqa_val"])
    turn = records[0]["conversations"][0]
    turn["value"] = turn["value"].replace("<image> ", "<image>\n")
    assert read(records)[0].annotation.text == "What color is the chair?"


def test_other_words_are_scored_but_not_trained_on(read, tmp_path):
    records = copy.deepcopy(FILES["scanqa_val"])
    records[0]["conversations"][0]["value"] = "<image> What color is the chair? Be brief."
    with pytest.raises(
        StereopsisError, match=r"asks 'What color .* Be brief\.', expected '.*simply\.'; .* 'cls' template"
    ):
        read(records)
    (found,) = read_annotation_records("scanqa", tmp_path / "processed" / "x_llava_style.json")
    assert found.annotation.answers == ("dark brown", "brown")


SPLITS = {
    "plain": ("I am at the door.", "What is left of me?", "what"),
    "two sentences": ("I sit. The sofa is behind me.", "Is the lamp on?", "is"),
    "no full stop": ("I am standing by the wall and what I see is a table", "How many chairs are there?", "how"),
    "others": ("I am at the door.", "If I turn right, will I see a bed?", "others"),
    "type word within": ("I know. What a room. I am at the desk.", "What is on it?", "what"),
    "lower case": ("I am at the door.", "which side is the bed on?", "which"),
    "question mark": ("Am I late? I am at the door.", "Can I see the clock?", "can"),
    "quotation": ('The sign says "Exit."', "Can I leave?", "can"),
    "nothing": ("", "What is left of me?", "what"),
}


@pytest.mark.parametrize("case", SPLITS)
def test_situation_and_question_part(case):
    situation, question, kind = SPLITS[case]
    joined = f"{situation} {question}" if situation else question
    assert split_situation(joined, kind) == (situation, question)


def test_the_published_test_questions_part_where_they_were_joined(shared_data):
    source = shared_data / "sqa3d" / "v1_balanced_questions_test_scannetv2.json"
    if not source.exists():
        pytest.skip(f"no SQA3D at {source}")
    records = json.loads(source.read_text())["questions"]
    wrong = 0
    for record in records:
        start = record["question"].lstrip().lower()
        kind = next((word for word in ("what", "is", "how", "can", "which") if start.startswith(word)), "others")
        joined = f"{record['situation']} {record['question']}"
        parts = split_situation(joined, kind)
        assert " ".join(parts) == joined
        wrong += parts != (record["situation"], record["question"])
    assert len(records) == 3519
    assert wrong == 2


def test_real_scanqa_and_scanrefer_words_come_back(shared_data, read):
    questions = json.loads((shared_data / "scanqa" / "ScanQA_v1.0_val.json").read_text())[::40]
    records = [
        {
            "id": f"scanqa_{item['question_id']}_0",
            "video": f"scannet/{item['scene_id']}",
            "conversations": [
                {"value": f"<image> {item['question']} Answer the question simply.", "from": "human"},
                {"value": item["answers"][0], "from": "gpt"},
            ],
            "metadata": {"dataset": "scanQA", "question_type": "unknow", "answers": item["answers"]},
        }
        for item in questions
    ]
    for item, found in zip(questions, read(records), strict=True):
        assert found.annotation.text == item["question"]
        assert list(found.annotation.answers) == item["answers"]
    descriptions = json.loads((shared_data / "scanrefer" / "csvg_scanrefer_val_1000_native_format.json").read_text())
    records = [
        {
            "id": number,
            "video": f"scannet/{item['scene_id']}",
            "conversations": [
                {"value": f"<image>{scanrefer.PREFIX}\n{item['description'].capitalize()}", "from": "human"},
                {"value": "<ground>", "from": "gpt"},
            ],
            "box": None,
            "metadata": {
                "dataset": "scanrefer",
                "question_type": "multiple",
                "ann_id": str(number),
                "object_id": item["object_id"],
            },
        }
        for number, item in enumerate(descriptions[::10])
    ]
    for item, found in zip(descriptions[::10], read(records), strict=True):
        assert found.annotation.text == item["description"].capitalize()
        assert found.annotation.object_ids == (int(item["object_id"]),)


def _turn(number, key, value):
    return lambda record: record["conversations"][number].__setitem__(key, value)


def _metadata(key, value):
    return lambda record: record["metadata"].__setitem__(key, value)


def _field(key, value):
    return lambda record: record.__setitem__(key, value)


# The file, what is done to its first record, and what the message must say.
FAULTS = {
    "no metadata": ("scanqa_val", lambda r: r.pop("metadata"), "'dataset' must be one of .*scanqa.*found no such key"),
    "unknown benchmark": ("scanqa_val", _metadata("dataset", "nr3d"), "'dataset' must be one of .* found 'nr3d'"),
    "type of a number": ("scan2cap_val", _metadata("question_type", 3), "'question_type' must be 'unique' or"),
    "no conversation": ("scanqa_val", lambda r: r.pop("conversations"), "'conversations' must be a list"),
    "one turn": ("scanqa_val", lambda r: r["conversations"].pop(), "one turn of 'human' and one of 'gpt'"),
    "three turns": ("scanqa_val", lambda r: r["conversations"].append(r["conversations"][0]), "once each"),
    "turns the other way": ("scanqa_val", lambda r: r["conversations"].reverse(), "'human' and then 'gpt'"),
    "turn of a text": ("scanqa_val", lambda r: r["conversations"].__setitem__(0, "hi"), "must be an object"),
    "value of a number": ("scanqa_val", _turn(1, "value", 3), "with a text 'value'"),
    "two image tokens": ("scanqa_val", _turn(0, "value", "<image> <image> What? Answer briefly."), "expected '"),
    "other suffix": (
        "scanqa_val",
        _turn(0, "value", "<image> What? Answer briefly."),
        r"Answer the question simply\.'",
    ),
    "no question": (
        "scanqa_val",
        _turn(0, "value", "<image>  Answer the question simply."),
        "a question or description",
    ),
    "boxes as text": (
        "scanrefer_vg_train",
        _turn(0, "value", "<image>Localize the object according to the following description.\nIt."),
        "boxes as text.* 'cls' template",
    ),
    "words around a caption": ("scan2cap_train", _turn(0, "value", f"<image> {scan2cap.PROMPT} Now."), "Now"),
    "no scene": ("scanqa_val", lambda r: r.pop("video"), "'video' must be a text"),
    "no id": ("scanqa_val", lambda r: r.pop("id"), "'id' must be an id"),
    "answers of a text": ("scanqa_val", _metadata("answers", "brown"), "'answers' must be a list of texts"),
    "no object": ("scanrefer_vg_train", lambda r: r["metadata"].pop("object_id"), "'object_id' must be a whole number"),
    "object of a word": ("scanrefer_vg_train", _metadata("object_id", "chair"), "whole number >= 0, found 'chair'"),
    "objects of words": ("multi3drefer_val", _metadata("object_id", ["a"]), "must be a list of whole numbers"),
    "box of five": ("scanrefer_vg_train", _field("box", [0, 0, 0, 1, 1]), "'box' must be six finite numbers"),
    "box of NaN": ("scan2cap_train", _field("box_input", [float("nan")] * 6), "'box_input' must be six finite"),
    "negative box": ("scan2cap_train", _field("gt_box", [0, 0, 0, -1, 1, 1]), "'gt_box' must be .* sizes >= 0"),
    "fewer boxes than objects": ("multi3drefer_val", _field("box", [BOXES_B[2]]), "one box for each of the 2 objects"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_records_of_another_form_are_refused(read, tmp_path, case):
    name, spoil, expected = FAULTS[case]
    records = copy.deepcopy(FILES[name])
    spoil(records[0])
    with pytest.raises(StereopsisError, match=expected) as error:
        read(records)
    assert str(error.value).startswith(f"{tmp_path / 'processed' / 'x_llava_style.json'}: ")


def test_a_repeated_id_is_an_error(read):
    with pytest.raises(StereopsisError, match="entry 1: scanqa 'scanqa_val-scene0011-0_0' is there twice"):
        read(FILES["scanqa_val"] * 2)


def test_files_of_another_form(tmp_path, read):
    with pytest.raises(StereopsisError, match=r"must be a list of annotations"):
        read({"data": []})
    with pytest.raises(StereopsisError, match=r"entry 0 must be an object"):
        read([3])
    (tmp_path / "processed" / "y_llava_style.json").write_text('[{"id":')
    files = ProcessedFiles(tmp_path)
    with pytest.raises(StereopsisError, match=r"y_llava_style\.json: is no valid JSON"):
        files.records("y")
    with pytest.raises(SceneError, match=r"z_llava_style\.json: does not exist"):
        files.records("z")


def test_a_benchmark_s_file_is_found_under_its_official_name(read, tmp_path):
    write_json(tmp_path / "processed" / "deep" / "scanrefer_vg_train_llava_style.json", FILES["scanrefer_vg_train"])
    files = ProcessedFiles(tmp_path)
    assert files.names() == ("scanrefer_vg_train",)
    assert files.records("scanrefer_train") == files.records("scanrefer_vg_train_llava_style.json")
    write_json(tmp_path / "processed" / "scanrefer_vg_train_llava_style.json", FILES["scanrefer_vg_train"])
    with pytest.raises(SceneError, match="several files are named 'scanrefer_train'"):
        files.records("scanrefer_train")
