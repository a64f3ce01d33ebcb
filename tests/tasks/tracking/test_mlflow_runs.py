"""What is told from the outside about a process that recorded a run."""

import os
import subprocess
import sys

import pytest

from tasks.paths import ROOT
from tasks.tracking import mlflow_runs
from tasks.tracking.mlflow_runs import is_lost, process_identity


@pytest.mark.process
def test_a_process_is_lost_when_it_is_gone_or_its_number_is_used_again():
    own = process_identity(os.getpid())
    assert not is_lost(own)
    host, pid, started = own.split("/")
    assert is_lost(f"{host}/{pid}/{float(started) - 60:.2f}")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    fingerprint = process_identity(child.pid)
    assert not is_lost(fingerprint)
    child.communicate(b"\n")
    assert is_lost(fingerprint)


def test_runs_of_other_hosts_and_other_tools_are_left_alone():
    assert not is_lost("another-host/1/1.00")
    assert not is_lost("")


@pytest.mark.process
def test_first_runs_at_once_on_a_fresh_var_all_find_the_tables(var):
    code = (
        "from tasks.tracking import mlflow_runs as m; m.end_lost_runs(); m.start_run('a run', {})"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in started:
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said[-2000:]
    client = mlflow_runs.client()
    assert len(client.search_runs([mlflow_runs.experiment_id()])) == 3
    assert not list(var.glob("mlflow.db.*"))
