"""The command ``gill plan`` on the tiny recipe's finished artifacts."""

import json

from flows.cli.app import main
from flows.cli.plan import WORK


def test_a_plan_ends_with_nought_where_there_is_nothing_to_do(trained_var, capsys):
    assert main(["plan", "--recipe", "tiny"]) == 0
    assert "nothing is to be made" in capsys.readouterr().out


def test_a_plan_says_why_and_ends_with_a_status_of_its_own(trained_var, capsys):
    changed = ["plan", "--recipe", "tiny", "--set", "decision.steps=21"]
    assert main(changed) == WORK
    assert "decision.steps: 20 -> 21" in capsys.readouterr().out
    assert main([*changed, "--json"]) == WORK
    found = {stage["stage"]: stage for stage in json.loads(capsys.readouterr().out)}
    assert found["decision"]["reasons"] == ["decision.steps: 20 -> 21"]
    assert main(["plan", "--recipe", "tiny", "--set", "decision.stps=21"]) == 2
