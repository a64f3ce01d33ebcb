"""The command ``gill``: order of the prompt, files of the answer, errors in one line."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from flows.cli import answers
from flows.cli.app import app, main
from gill.inference.engine import GillEngine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (30, 40), "red").save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@pytest.mark.process
def test_it_runs_as_a_module(trained_var, image, tmp_path):
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "generate", "--text", "a cat", "--image", image,
         "--out", str(out), "--image-bias", "inf", "--max-new-tokens", "2", "--num-images", "2"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    record = json.loads((out / "answer.json").read_text())
    assert record["prompt"] == [{"text": "a cat"}, {"image": image}]
    files = [segment["file"] for segment in record["answer"] if "file" in segment]
    assert len(files) == 4
    for file in files:
        Image.open(out / file).verify()
        assert str(out / file) in done.stdout
    assert [s["type"] for s in record["answer"]].count("Decision") == 2
    assert "Traceback" not in done.stderr


def test_images_and_text_keep_their_order(trained_var, image, tmp_path, monkeypatch, capsys):
    seen = {}

    def keep(self, prompt, **changes):
        seen.update(prompt=prompt, changes=changes)
        return []

    monkeypatch.setattr(GillEngine, "generate", keep)
    out = ["--out", str(tmp_path / "out")]
    text = ["--text", "one", "--image", image, "--text", "two", "--text", "three"]
    assert main(["generate", *text, *out, "--top-p", "0.5", "--truncate-left"]) == 0
    kinds = [item if isinstance(item, str) else type(item).__name__ for item in seen["prompt"]]
    assert kinds == ["one", "Image", "two", "three"]
    assert seen["changes"] == {"top_p": 0.5, "truncate_left": True}


def test_an_index_is_made_and_used(trained_var, image, tmp_path, capsys):
    out = tmp_path / "index"
    assert main(["index", "--images", str(tmp_path), "--out", str(out)]) == 0
    assert capsys.readouterr().out == "images: 1\n"
    command = ["generate", "--text", "x", "--index", str(out), "--out", str(tmp_path / "answer"),
               "--image-bias", "inf", "--max-new-tokens", "1", "--choice", "retrieve"]  # fmt: skip
    assert main(command) == 0
    assert f"from {image}" in capsys.readouterr().out


def test_errors_are_one_line_and_change_nothing(trained_var, image, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "answer.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    out = ["--out", str(tmp_path / "out")]
    wrong = {
        "the prompt is empty": out,
        "a --text is blank": ["--text", " ", *out],
        "there is no file": ["--image", str(tmp_path / "none.png"), *out],
        "is no image": ["--image", str(tmp_path / "text.png"), *out],
        "is a folder": ["--image", str(tmp_path), *out],
        "holds an answer already": ["--text", "x", "--out", str(tmp_path / "done")],
        "is a file": ["--text", "x", "--out", image],
        "top_p is 3.0": ["--text", "x", "--top-p", "3", *out],
        "has 256": ["--text", "x" * 300, *out],
        "holds no run": ["--text", "x", "--model", "nowhere", *out],
        "no finished index": ["--text", "x", "--index", str(tmp_path), *out],
        "no index to retrieve from": ["--text", "x", "--choice", "retrieve", "--model",
                                      mapper_run(trained_var), *out],
    }  # fmt: skip
    for message, arguments in wrong.items():
        assert main(["generate", *arguments]) == 2
        said = capsys.readouterr()
        assert message in said.err
        assert len(said.err.strip().splitlines()) == 1
        assert said.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def mapper_run(var):
    return json.loads((var / "last_run.json").read_text())["stages"]["mapper"]["mlflow_run_id"]


@pytest.mark.process
@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["generate", "--help"]])
def test_help_waits_for_no_heavy_import(arguments):
    code = (
        "import sys; from flows.cli.app import main; status = main(sys.argv[1:]); "
        "heavy = {'torch', 'prefect', 'mlflow', 'transformers', 'pyarrow', 'numpy'}; "
        "sys.exit(status or ', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Usage: gill" in done.stdout


def test_every_option_says_what_it_is():
    import typer

    for name, command in typer.main.get_command(app).commands.items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"


def test_every_setting_of_an_answer_is_an_option():
    from gill.inference.settings import Settings

    offered = set(inspect.signature(answers.generate).parameters)
    assert set(Settings.model_fields) <= offered


def ran(monkeypatch, *arguments):
    """What `gill run` hands to the local servers, without starting any."""
    seen = []
    monkeypatch.setattr("flows.local.run.run", lambda *given: seen.append(given) or 0)
    assert main(["run", *arguments]) == 0
    return seen[0]


def test_run_takes_a_stage_settings_and_a_bare_force(monkeypatch):
    assert ran(monkeypatch) == ("embedded", {}, None, False)
    given = ["mapper", "--recipe", "tiny", "--set", "mapper.learning_rate=5e-4", "--force"]
    changed = {"mapper.learning_rate": 5e-4}
    assert ran(monkeypatch, *given) == ("tiny", changed, "mapper", True)
    words = ["--set", "mapper.kind=mlp", "--set", 'evaluate.suites=["generation"]']
    changed = {"mapper.kind": "mlp", "evaluate.suites": ["generation"]}
    assert ran(monkeypatch, *words) == ("embedded", changed, None, False)
    assert ran(monkeypatch, "joint")[1] == {"schedule": "joint"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "embeded"], "embeded"),
        (["maper"], "did you mean 'mapper'"),
        (["--set", "mapper.kind"], "'mapper.kind' is no setting"),
        (["--set", "maper.kind=mlp"], "did you mean 'mapper.kind'"),
        (["--set", "mapper.start=fitted"], "is called 'mapper.initialization' now"),
    ],
)
def test_a_wrong_run_is_refused_before_a_server_starts(var, capsys, arguments, message):
    assert main(["run", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not any(var.iterdir())


def test_config_prints_what_a_setting_is(capsys):
    assert main(["config", "--recipe", "tiny", "--search", "warmup", "--changed"]) == 0
    said = capsys.readouterr().out
    assert "* adapters.warmup_steps = 2 steps (default 2000)" in said
    assert "the learning rate grows linearly" in said
    assert "decision.warmup_steps" not in said  # which the recipe leaves as it is
    assert main(["config", "--search", "nonsense"]) == 2
