import copy
import json

import numpy as np
import pytest
from video3dllm_folder import BOXES_A, BOXES_B, PROPOSALS_B, A, processed, write_json

from stereopsis.benchmarks import prompt_of, target_of
from stereopsis.benchmarks.multi3drefer import prompt as multi3drefer
from stereopsis.benchmarks.scan2cap import prompt as scan2cap
from stereopsis.benchmarks.scanqa import prompt as scanqa
from stereopsis.benchmarks.scanrefer import prompt as scanrefer
from stereopsis.benchmarks.sqa3d import prompt as sqa3d
from stereopsis.errors import SceneError
from stereopsis.scenes.readers import video3dllm_samples
from stereopsis.scenes.readers.video3dllm_samples import read_samples, split_situation

FILES = processed()


@pytest.fixture
def read(tmp_path):
    """A function that reads records from a file."""

    def read(records):
        write_json(tmp_path / "x_llava_style.json", records)
        return read_samples(tmp_path / "x_llava_style.json")

    return read


def test_the_wording_is_the_benchmarks_own():
    """Layers below the benchmarks cannot import their words."""
    assert video3dllm_samples.MULTI3DREFER_SUFFIX == multi3drefer.SUFFIX
    assert video3dllm_samples.SCAN2CAP_PROMPT == scan2cap.PROMPT
    assert video3dllm_samples.SCANQA_SUFFIX == scanqa.SUFFIX
    assert video3dllm_samples.GROUNDING_PREFIX == scanrefer.PREFIX
    assert video3dllm_samples.SQA3D_SUFFIX == sqa3d.SUFFIX


@pytest.mark.parametrize("name", FILES)
def test_the_benchmark_s_prompt_gives_the_file_s_words_again(read, name):
    for given, sample in zip(FILES[name], read(FILES[name]), strict=True):
        asked, answered = (turn["value"] for turn in given["conversations"])
        assert prompt_of(sample.annotation) == asked.removeprefix("<image>").removeprefix(" ")
        if "annotations" not in given:  # Scan2Cap's validation capitalises the caption that it shows
            assert target_of(sample.annotation) == answered


def test_questions(read):
    first, second, third = (sample.annotation for sample in read(FILES["sqa3d_train"]))
    assert (first.id, second.id, third.id) == ("220602000002", "220602000002/1", "220602000002/2")
    assert second.situation == "I stood up. It is late."
    assert second.text == "What is in front of me?"
    assert (second.type, second.answers, second.scene_id) == ("what", ("piano",), A)
    (question,) = (sample.annotation for sample in read(FILES["scanqa_val"]))
    assert question.text == "What color is the chair?"
    assert (question.task, question.type) == ("scanqa", "unknown")
    assert question.answers == ("dark brown", "brown")


def test_captions(read):
    (sample,) = read(FILES["scan2cap_train"])
    assert sample.annotation.text == ""
    assert sample.annotation.answers == ("A black chair.",)
    assert sample.annotation.object_ids == (1,)
    np.testing.assert_array_equal(sample.boxes, [BOXES_A[1]])
    np.testing.assert_array_equal(sample.box_input, BOXES_A[1])
    matched, missed = read(FILES["scan2cap_val"])
    assert matched.annotation.answers == ("a chair.", "the only chair.")
    np.testing.assert_array_equal(matched.box_input, PROPOSALS_B[0])
    np.testing.assert_array_equal(matched.boxes, [BOXES_B[0]])
    assert missed.box_input is None


def test_grounding(read):
    (sample,) = read(FILES["scanrefer_vg_train"])
    assert sample.annotation.text == "The chair is black. it is to the right."
    assert (sample.annotation.object_ids, sample.annotation.type) == ((1,), "multiple")
    both, none = read(FILES["multi3drefer_val"])
    assert (both.annotation.text, both.annotation.object_ids) == ("Both lamps.", (2, 5))
    np.testing.assert_array_equal(both.boxes, [BOXES_B[2], BOXES_B[5]])
    assert (none.annotation.object_ids, none.annotation.type, none.annotation.answers) == ((), "zt_w_d", ())
    assert none.boxes.shape == (0, 6)


def test_ids_of_different_files_do_not_collide(read):
    every = [sample.annotation for name in FILES for sample in read(FILES[name])]
    assert len({annotation.id for annotation in every}) == len(every)


def test_a_line_break_after_the_image_token_is_no_part_of_the_question(read):
    records = copy.deepcopy(FILES["scanqa_val"])
    turn = records[0]["conversations"][0]
    turn["value"] = turn["value"].replace("<image> ", "<image>\n")
    assert read(records)[0].annotation.text == "What color is the chair?"


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
    for item, sample in zip(questions, read(records), strict=True):
        assert sample.annotation.text == item["question"]
        assert list(sample.annotation.answers) == item["answers"]
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
            "metadata": {"dataset": "scanrefer", "question_type": "multiple", "object_id": item["object_id"]},
        }
        for number, item in enumerate(descriptions[::10])
    ]
    for item, sample in zip(descriptions[::10], read(records), strict=True):
        assert sample.annotation.text == item["description"].capitalize()
        assert sample.annotation.object_ids == (int(item["object_id"]),)


def _turn(number, key, value):
    return lambda record: record["conversations"][number].__setitem__(key, value)


def _metadata(key, value):
    return lambda record: record["metadata"].__setitem__(key, value)


def _field(key, value):
    return lambda record: record.__setitem__(key, value)


# The file, what is done to its first record, and what the message must say.
FAULTS = {
    "no metadata": ("scanqa_val", lambda r: r.pop("metadata"), "record 0: 'metadata' is None"),
    "unknown benchmark": (
        "scanqa_val",
        _metadata("dataset", "nr3d"),
        "'metadata.dataset' is 'nr3d', expected one of sqa3d",
    ),
    "type of a number": ("scanqa_val", _metadata("question_type", 3), "'question_type' is 3, expected a text"),
    "no conversation": ("scanqa_val", lambda r: r.pop("conversations"), "'conversations' is None, expected two turns"),
    "one turn": ("scanqa_val", lambda r: r["conversations"].pop(), "expected two turns"),
    "three turns": ("scanqa_val", lambda r: r["conversations"].append(r["conversations"][0]), "expected two turns"),
    "turns the other way": ("scanqa_val", lambda r: r["conversations"].reverse(), "from 'human' and 'gpt'"),
    "turn of a text": ("scanqa_val", lambda r: r["conversations"].__setitem__(0, "hi"), "expected two turns"),
    "value of a number": ("scanqa_val", _turn(1, "value", 3), "expected two turns with 'value'"),
    "no image token": ("scanqa_val", _turn(0, "value", "What? Answer the question simply."), "expected '<image> "),
    "two image tokens": (
        "scanqa_val",
        _turn(0, "value", "<image> <image> What? Answer the question simply."),
        "expected '<image> ",
    ),
    "other suffix": (
        "scanqa_val",
        _turn(0, "value", "<image> What? Answer briefly."),
        r"Answer the question simply\.' ",
    ),
    "no question": ("scanqa_val", _turn(0, "value", "<image>  Answer the question simply."), "the human's turn is"),
    "boxes as text": (
        "scanrefer_vg_train",
        _turn(0, "value", "<image>Localize the object according to the following description.\nIt."),
        "boxes as text.* 'cls' template",
    ),
    "words around a caption": (
        "scan2cap_train",
        _turn(0, "value", f"<image> {scan2cap.PROMPT} Now."),
        "the human's turn is",
    ),
    "another data set's scene": (
        "scanqa_val",
        _field("video", "3rscan/0ad2"),
        "'video' is '3rscan/0ad2', expected 'scannet/",
    ),
    "no scene": ("scanqa_val", lambda r: r.pop("video"), "'video' is None"),
    "no id": ("scanqa_val", lambda r: r.pop("id"), "'id' is None"),
    "answers of a text": ("scanqa_val", _metadata("answers", "brown"), "the answers are 'brown', expected a list"),
    "no object": ("scanrefer_vg_train", lambda r: r["metadata"].pop("object_id"), "'metadata.object_id' is None"),
    "object of a word": ("scanrefer_vg_train", _metadata("object_id", "chair"), "is 'chair', expected a number"),
    "objects of words": ("multi3drefer_val", _metadata("object_id", ["a"]), r"is \['a'\], expected a list of numbers"),
    "box of five": ("scanrefer_vg_train", _field("box", [0, 0, 0, 1, 1]), "'box' is .*expected six finite numbers"),
    "box of NaN": ("scan2cap_train", _field("box_input", [float("nan")] * 6), "'box_input' is .*NaN or inf"),
    "negative box": ("scan2cap_train", _field("gt_box", [0, 0, 0, -1, 1, 1]), "'gt_box' is .*must not be negative"),
    "fewer boxes than objects": ("multi3drefer_val", _field("box", [BOXES_B[2]]), "1 boxes for 2 objects"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_records_of_another_form_are_refused(read, tmp_path, case):
    name, spoil, expected = FAULTS[case]
    records = copy.deepcopy(FILES[name])
    spoil(records[0])
    with pytest.raises(SceneError, match=expected) as error:
        read(records)
    assert str(error.value).startswith(f"{tmp_path / 'x_llava_style.json'}: record 0: ")


def test_a_repeated_id_is_an_error_but_in_sqa3d(read):
    with pytest.raises(SceneError, match="record 1: the id 'scanqa_val-scene0011-0_0' is another scanqa record's"):
        read(FILES["scanqa_val"] * 2)


def test_files_of_another_form(tmp_path, read):
    with pytest.raises(SceneError, match=r"found a dict, expected a list of records"):
        read({"data": []})
    with pytest.raises(SceneError, match=r"record 0: found 3, expected an object"):
        read([3])
    (tmp_path / "y.json").write_text('[{"id":')
    with pytest.raises(SceneError, match=r"y\.json: cannot be read as JSON"):
        read_samples(tmp_path / "y.json")
    with pytest.raises(SceneError, match=r"z\.json: does not exist"):
        read_samples(tmp_path / "z.json")
    assert read([]) == ()
