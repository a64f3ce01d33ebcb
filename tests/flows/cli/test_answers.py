"""What is wrong with a question is a line and status 2, before any model is loaded."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from flows.cli import answers
from flows.cli.app import main
from gill.inference.results import Decision, GeneratedImage, Text, as_pil


@pytest.fixture
def folder(tmp_path, var):
    Image.new("RGB", (30, 40), "red").save(tmp_path / "a.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    return tmp_path


WRONG = {
    "a seed of 23 digits": (["--seed", str(10**22)], "seed is 10000000000000000000000; it must be"),
    "a seed below all": (["--seed", str(-(2**63) - 1)], "seed is"),
    "steps beyond the scheduler's": (["--steps", "1001"], "steps is 1001; it must be less than"),
    "no steps": (["--steps", "0"], "steps is 0; it must be greater"),
    "half a step": (["--steps", "1.5"], "--steps"),
    "NaN": (["--temperature", "nan"], "temperature is nan; it must be a finite number"),
    "infinite": (["--guidance-scale", "inf"], "guidance_scale is inf"),
    "NaN bias": (["--image-bias", "nan"], "image_bias is nan; it must be a number"),
    "more than all": (["--top-p", "1.5"], "top_p is 1.5"),
    "a word for a number": (["--top-p", "much"], "--top-p"),
    "fewest over most": (["--min-new-tokens", "9", "--max-new-tokens", "3"], "min_new_tokens is 9"),
    "an endless answer": (["--max-new-tokens", str(10**12)], "max_new_tokens is"),
    "a device of no kind": (["--device", "gpu"], "device is 'gpu'; it must be auto, cpu"),
    "a device that is not there": (["--device", "cuda:99"], "there is no cuda:99"),
    "an empty device": (["--device", ""], "device is ''; it must be auto"),
    "a choice of neither": (["--choice", "drawn"], "'drawn' is not one of"),
    "an unknown option": (["--sed", "1"], "--sed"),
    "bytes that are no UTF-8": (["--text", "caf\udce9"], r"b'caf\xe9' is not valid UTF-8"),
    "a path that is no UTF-8": (["--image", "caf\udce9.png"], "is not valid UTF-8"),
    "a missing image": (["--image", "{folder}/none.png"], "there is no file"),
    "an image below a file": (["--image", "{folder}/a.png/b.png"], "a.png/b.png"),
    "an empty image": (["--image", "{folder}/empty.png"], "empty.png"),
    "no image": (["--image", "{folder}/text.png"], "is no image"),
    "a folder for an image": (["--image", "{folder}"], "is a folder"),
    "a name of 300 letters": (["--image", "x" * 300], "cannot read"),
    "out below a file": (["--out", "{folder}/a.png/out"], "is a file, or lies below one"),
    "out is a file": (["--out", "{folder}/a.png"], "is a file, or lies below one"),
    "a model of 300 letters": (["--model", "x" * 300], ""),
    "a model that is a file": (["--model", "{folder}/a.png"], "holds no run"),
    "a model that is nowhere": (["--model", "{folder}/none"], "holds no run"),
    "no model at all": ([], "holds no run"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_a_line_and_status_2(folder, name, capsys):
    given, message = WRONG[name]
    given = [argument.replace("{folder}", str(folder)) for argument in given]
    out = [] if "--out" in given else ["--out", str(folder / "out")]
    before = sorted(folder.rglob("*"))
    assert main(["generate", "--text", "a cat", *given, *out]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--images", "{folder}/none", "--out", "{folder}/o"], "is no folder of images"),
        (["--images", "{folder}/a.png", "--out", "{folder}/o"], "is no folder of images"),
        (["--images", "{folder}", "--out", "{folder}/a.png/o"], "lies below one"),
        (["--images", "{folder}", "--out", "{folder}/o", "--device", "tpu"], "device is 'tpu'"),
        (["--images", "{folder}"], "--out"),
    ],
)
def test_a_wrong_index_is_a_line_and_status_2(folder, given, message, capsys):
    assert main(["index", *(g.replace("{folder}", str(folder)) for g in given)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stages": 1}', '{"stages": {"mapper": 1}}'])
def test_a_damaged_record_of_the_last_run_is_named(folder, var, text, capsys):
    (var / "last_run.json").write_text(text)
    assert main(["generate", "--text", "x", "--out", str(folder / "out")]) == 2
    assert "last_run.json" in capsys.readouterr().err


class Loaded:
    def image(self, segment):
        return as_pil(segment.image)


def test_an_answer_is_valid_json_whatever_its_numbers(folder):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    answer = [
        Text("red"),
        Decision("generate", {"generate": math.nan, "retrieve": 0.5}, "decision model"),
        GeneratedImage(torch.zeros(3, 8, 8), math.inf, 7),
    ]
    prompt = [("text", "a cat"), ("image", Path("a.png"))]
    answers._write(answer, Loaded(), prompt, folder / "out", {"image_bias": -math.inf})
    text = (folder / "out" / "answer.json").read_text()
    record = json.loads(text, parse_constant=refuse)
    assert record["settings"] == {"image_bias": "-inf"}
    assert record["answer"][1]["probabilities"] == {"generate": "nan", "retrieve": 0.5}
    assert record["answer"][2]["score"] == "inf"
