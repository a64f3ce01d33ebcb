"""``gill status`` beside a real run in a process of its own, and without any server."""

import json
import time

import pytest
from flow import started

from data.io.atomic import write_json
from flows.cli.app import main
from flows.pipeline import dag

ENDLESS = {"adapters.steps": 100_000, "adapters.log_every": 5}
STAGES = list(dag("staged").stages)


def told(capsys):
    assert main(["status", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_before_any_run_there_is_none(var, capsys):
    assert told(capsys)["runs"] == []
    assert main(["status"]) == 0
    assert "no run yet" in capsys.readouterr().out


def wait_until(told_enough, process, output, capsys):
    while True:
        runs = told(capsys)["runs"]
        stages = {stage["stage"]: stage for stage in runs[0]["stages"]} if runs else {}
        if told_enough(stages):
            return runs[0], stages
        assert process.poll() is None, output.read_text()[-3000:]
        time.sleep(0.5)


@pytest.mark.process
@pytest.mark.timeout(600)
def test_the_run_at_hand_is_told_while_it_works_and_after_it_was_killed(tmp_path, var, capsys):
    output = tmp_path / "output.txt"
    with output.open("w") as opened:
        process = started(tmp_path, var, "--overrides", json.dumps(ENDLESS), output=opened)
    try:
        run, stages = wait_until(
            lambda s: "loss" in s.get("adapters", {}).get("progress", {}).get("metrics", {}),
            process,
            output,
            capsys,
        )
        assert (run["recipe"], run["stage"], run["state"]) == ("tiny", None, "running")
        assert run["memory_bytes"] > 100e6
        assert list(stages) == STAGES
        states = {name: stage["state"] for name, stage in stages.items()}
        assert states["download"] == states["clip_features"] == "done"
        assert states["adapters"] == "works"
        assert states["mapper"] == states["decision"] == states["evaluate"] == "waits"
        progress = stages["adapters"]["progress"]
        assert 0 < progress["done"] < progress["total"] == 100_000
        assert progress["unit"] == "steps"
        assert main(["status"]) == 0
        said = capsys.readouterr().out
        assert "the run at hand: tiny, full pipeline" in said
        assert "adapters        works: " in said
        assert "/100,000 steps (" in said
        assert " left; " in said
        assert ", l_c " in said
        assert "learning_rate" not in said
        assert "mapper          waits" in said
        assert "mlflow server: not running" in said
    finally:
        process.kill()
        process.wait(timeout=60)
    (run,) = told(capsys)["runs"]
    assert (run["state"], run["memory_bytes"]) == ("killed", None)
    states = {stage["stage"]: stage for stage in run["stages"]}
    assert states["adapters"]["state"] == "unfinished"
    assert states["adapters"]["progress"]["done"] > 0
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "the last run killed: tiny" in said
    assert "adapters        unfinished: " in said
    assert "left" not in said


def test_a_run_that_has_ended_is_told_as_the_last(var, capsys):
    record = {
        "flow_run_id": "r1", "recipe": "tiny", "stage": "mapper", "state": "failed", "stages": {},
        "error": "the disk is full\nat step 3",
    }  # fmt: skip
    write_json(var / "runs" / "r1.json", record)
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "the last run failed: tiny, mapper (r1)\n  the disk is full\n" in said
