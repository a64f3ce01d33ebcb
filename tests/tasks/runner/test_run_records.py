"""Records of runs: written when they begin and end; a process that is gone was killed."""

import json
import os
import subprocess
import sys

import pytest

from data.artifacts import Artifact
from tasks.runner.run_records import run_records, write_begun, write_ended
from tasks.tracking.mlflow_runs import process_identity


def test_a_run_is_under_way_until_it_says_how_it_ended(var):
    write_begun({"flow_run_id": "r1"}, [Artifact("mapper", "m1", var)])
    (record,) = run_records()
    assert (record.artifacts, record.under_way, record.killed) == (["mapper/m1"], True, False)
    assert not (var / "last_run.json").exists()
    write_ended({"flow_run_id": "r1", "state": "failed", "stages": {}})
    (record,) = run_records()
    assert (record.artifacts, record.under_way, record.killed) == ([], False, False)
    assert json.loads((var / "last_run.json").read_text())["state"] == "failed"


@pytest.mark.process
def test_a_run_without_its_process_was_killed(var):
    write_begun({"flow_run_id": "r1"}, [])
    path = var / "runs" / "r1.json"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    described = json.loads(path.read_text())
    assert described["process"] == process_identity(os.getpid())
    path.write_text(json.dumps(described | {"process": process_identity(child.pid)}))
    assert [r.under_way for r in run_records()] == [True]
    child.communicate(b"\n")
    assert [(r.under_way, r.killed) for r in run_records()] == [(False, True)]
    path.write_text(json.dumps(described | {"process": "elsewhere/1/0.00"}))
    assert [r.under_way for r in run_records()] == [True]


def test_a_record_that_cannot_be_read_is_none(var):
    (var / "runs").mkdir()
    for number, text in enumerate(["", "[]", "{}", '{"state": "running", "stages": {"a": 1}}']):
        (var / "runs" / f"{number}.json").write_text(text)
    assert list(run_records()) == []
