"""The command ``gill store`` on the tiny recipe's finished artifacts."""

import shutil

import pytest

from data.io.atomic import write_json
from flows.cli.app import main


@pytest.fixture
def copied_var(trained, tmp_path, monkeypatch):
    folder = tmp_path / "var"
    shutil.copytree(trained, folder)
    monkeypatch.setenv("GILL_VAR", str(folder))
    return folder


def test_only_what_nothing_needs_is_pruned(copied_var, capsys):
    spare = copied_var / "store" / "mapper" / "spare.partial"
    write_json(spare / ".journal" / "inputs.json", [])
    assert main(["store", "list"]) == main(["store", "size"]) == 0
    assert "unfinished work" in capsys.readouterr().out
    assert main(["store", "prune", "--yes"]) == 0
    assert "there is nothing to remove" in capsys.readouterr().out
    before = {p for p in copied_var.glob("store/*/*") if p.is_dir()}
    assert main(["store", "prune", "--yes", "--unfinished"]) == 0
    after = {p for p in copied_var.glob("store/*/*") if p.is_dir()}
    assert before - after == {spare}
    assert main(["plan", "--recipe", "tiny"]) == 0
    assert main(["store", "prune", "--yes"]) == 0
    assert "there is nothing to remove" in capsys.readouterr().out


def test_nothing_is_pruned_beside_work_that_does_not_say_its_inputs(copied_var, capsys):
    mute = copied_var / "store" / "mapper" / "older.partial"
    mute.mkdir()
    (copied_var / "last_run.json").unlink()
    before = {p for p in copied_var.glob("store/*/*") if p.is_dir()}
    assert main(["store", "prune", "--yes"]) == 2
    assert "mapper/older must stay and do not say what they" in capsys.readouterr().err
    assert {p for p in copied_var.glob("store/*/*") if p.is_dir()} == before


def test_verify_names_the_damaged_file(copied_var, capsys):
    assert main(["store", "verify"]) == 0
    (weights,) = copied_var.glob("store/mapper/*/gill.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert main(["store", "verify", "mapper"]) == 2
    shown = capsys.readouterr()
    assert "gill.safetensors: other contents" in shown.out
    assert "1 of 1 artifacts are damaged" in shown.err
    assert main(["store", "verify", "nothing"]) == 2


def test_a_pin_is_kept_and_undone(copied_var, capsys):
    assert main(["store", "pin", "evaluate"]) == 0
    (copied_var / "last_run.json").unlink()
    assert main(["store", "prune", "--yes"]) == 0
    assert "there is nothing to remove" in capsys.readouterr().out
    assert main(["store", "pin", "evaluate", "--undo"]) == 0
    assert main(["store", "pin", "nothing"]) == 2
