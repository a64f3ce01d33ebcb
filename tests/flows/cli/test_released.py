"""``gill export`` and ``gill import`` on the tiny recipe's model."""

import shutil

from flows.cli.app import main
from flows.cli.plan import WORK


def test_a_model_goes_out_and_comes_back_and_answers(trained_var, tmp_path, monkeypatch, capsys):
    assert main(["export", str(tmp_path / "again")]) == 2
    assert "the released code cannot load this model" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "again"), "--anyway"]) == 0
    assert "not for the released code: its language model is tiny" in capsys.readouterr().out
    monkeypatch.setenv("GILL_VAR", str(tmp_path / "elsewhere"))
    assert main(["import", str(tmp_path / "again")]) == 0
    said = capsys.readouterr().out
    path = said.partition("--model ")[2].split()[0]
    assert f"gill run --recipe opt-6.7b --model {path}" in said
    assert main(["plan", "--recipe", "tiny", "--model", path]) == WORK
    shown = capsys.readouterr().out
    assert "imported" in shown
    assert "mapper" not in shown
    options = ["--text", "a red apple", "--max-new-tokens", "2", "--out", str(tmp_path / "answer")]
    assert main(["generate", "--model", path, *options]) == 0
    shutil.rmtree(tmp_path / "again")
    assert main(["import", str(tmp_path / "again")]) == 2
    assert "has no model_args.json" in capsys.readouterr().err
    for command in ("plan", "run"):
        assert main([command, "--recipe", "tiny", "--model", str(tmp_path / "again")]) == 2
        assert "holds no run" in capsys.readouterr().err
