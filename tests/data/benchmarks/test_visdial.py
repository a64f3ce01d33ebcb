"""VisDial: dialogues are whole or counted; no rounds are joined over a hole."""

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
    _, folder = visdial
    (tmp_path / "old.json").write_text('{"data": {"questions": [], "answers": []}}')
    with pytest.raises(ContextError, match=r"no list data\.dialogs"):
        read_visdial(tmp_path / "old.json", folder)


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"question": 3, "answer": 99}, "bad number of a answer"),
        ({"question": 99, "answer": 0}, "bad number of a question"),
        ({"question": -1, "answer": 0}, "bad number of a question"),
        ({"question": 3, "answer": -1}, "bad number of a answer"),
        ({"question": True, "answer": 0}, "bad number of a question"),
        ({"question": 1.0, "answer": 0}, "bad number of a question"),
        ({"question": None, "answer": 0}, "bad number of a question"),
        ({"answer": 0}, "bad number of a question"),
        ({"question": 3, "answer": None}, "too few answered rounds"),
        ({"question": 3}, "too few answered rounds"),
        ({"question": 10, "answer": 0}, "blank question"),
        ({"question": 11, "answer": 0}, "blank question"),
        ({"question": 3, "answer": 2}, "blank answer"),
        ({"question": 3, "answer": 3}, "blank answer"),
        ([], "no round"), (None, "no round"),
    ],
)  # fmt: skip
def test_a_hole_costs_its_dialogue_alone(visdial, turn, reason):
    path, folder = visdial
    content = json.loads(path.read_text())
    data = content["data"]
    data["questions"] += ["  ", None]
    data["answers"] += ["", None]
    bad = json.loads(json.dumps(data["dialogs"][0]))
    bad["dialog"][3] = turn
    data["dialogs"] = [bad, data["dialogs"][0]]
    path.write_text(json.dumps(content))
    found = read_visdial(path, folder)
    assert found.skipped == {reason: 1}
    assert [case.key for case in found.cases] == ["284024"]
    (sample,) = found.samples
    assert "data.dialogs[0] of" in sample.place
    # Its rounds before the hole are a shorter context, and nothing after the hole is in it.
    (short, _) = read_visdial(path, folder, (1, 3)).cases
    assert short.contexts["3 rounds"][0].count("Q: ") == 3


@pytest.mark.parametrize("bad", [None, [], {}, {"dialog": None, "image_id": 284024}])
def test_one_bad_dialogue_among_good_ones(visdial, bad):
    path, folder = visdial
    content = json.loads(path.read_text())
    content["data"]["dialogs"].insert(0, bad)
    path.write_text(json.dumps(content))
    found = read_visdial(path, folder)
    assert found.skipped.pop("no dialogue") == 1
    assert len(found.cases) == 1


@pytest.mark.parametrize("number", [-1, None, "x", 1.5, True, {}])
def test_a_number_of_no_image_is_counted(visdial, number):
    """-1 once stood for files without a number in their names."""
    path, folder = visdial
    image(folder / "cover.jpg")
    content = json.loads(path.read_text())
    content["data"]["dialogs"][1]["image_id"] = number
    path.write_text(json.dumps(content))
    assert read_visdial(path, folder).skipped["bad image_id"] == 1
