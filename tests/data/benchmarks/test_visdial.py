"""Dialogues in the official form of VisDial."""

import json

import pytest
from PIL import Image

from data.benchmarks.contexts import ContextError
from data.benchmarks.visdial import dialogue_text, read_visdial


def image(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)


@pytest.fixture
def visdial(tmp_path):
    """Three dialogues: whole, without its image, and one whose last round has no answer."""
    questions = [f"is there thing {i}" for i in range(10)]
    answers = ["yes", "no"]
    rounds = [{"question": i, "answer": i % 2, "answer_options": [0, 1]} for i in range(10)]
    cut = [*rounds[:9], {"question": 9}]
    dialogs = [
        {"image_id": 284024, "caption": "a room", "dialog": rounds},
        {"image_id": 7, "caption": "a dog", "dialog": rounds},
        {"image_id": 284024, "caption": "a room", "dialog": cut},
    ]
    data = {"questions": questions, "answers": answers, "dialogs": dialogs}
    path = tmp_path / "visdial_1.0_val.json"
    path.write_text(json.dumps({"version": "1.0", "split": "val2018", "data": data}))
    image(tmp_path / "coco" / "VisualDialog_val2018_000000284024.jpg")
    return path, tmp_path / "coco"


def test_visdial_dialogues_and_what_is_skipped(visdial):
    found = read_visdial(*visdial)
    assert found.skipped == {"image: missing": 1, "too few answered rounds": 1}
    (case,) = found.cases
    assert list(case.contexts) == ["1 round", "5 rounds", "10 rounds"]
    assert case.contexts["1 round"] == ("Q: is there thing 0?\nA: yes",)
    (whole,) = case.contexts["10 rounds"]
    assert whole.split("\n")[2:4] == ["Q: is there thing 1?", "A: no"]
    assert len(whole.split("\n")) == 20


def test_questions_end_with_one_mark():
    assert dialogue_text([("is it red ?", " no ")]) == "Q: is it red?\nA: no"


def test_other_dialogue_files_are_refused(visdial, tmp_path):
    path, folder = visdial
    (tmp_path / "old.json").write_text('{"data": {"questions": [], "answers": []}}')
    with pytest.raises(ContextError, match=r"no list data\.dialogs"):
        read_visdial(tmp_path / "old.json", folder)
    content = json.loads(path.read_text())
    content["data"]["dialogs"][0]["dialog"][3]["answer"] = 99
    path.write_text(json.dumps(content))
    with pytest.raises(ContextError, match=r"data\.dialogs\[0\] .* not as in VisDial 1\.0"):
        read_visdial(path, folder)
