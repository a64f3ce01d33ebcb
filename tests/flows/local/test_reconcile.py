"""What dead processes left as running is settled, and a live run never touched."""

import os
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Pending, Running

from flows.local import reconcile
from flows.local.environment import auth_string
from tasks.tracking.mlflow_runs import PROCESS_LABEL, process_identity

DEAD = f"{socket.gethostname()}/{os.getpid()}/1.00"  # the number was given to this process since
ELSEWHERE = "another-host/1/1.00"


@flow(name="gill")
def probe():
    """Stands for the pipeline's flow, which reconcile knows by its name."""


@pytest.fixture
def client(servers):
    ours = {PREFECT_API_URL: f"{servers.prefect}/api", PREFECT_API_AUTH_STRING: auth_string()}
    with temporary_settings(ours), get_client(sync_client=True) as client:
        yield client


def going(client, mark=None, state=None):
    """A run that is said to go on, with a task run."""
    run = client.create_flow_run(probe, state=state or Running())
    if mark:
        client.update_flow_run_labels(run.id, {PROCESS_LABEL: mark})
    return run.id


def task_of(client, run_id, task):
    made = client.create_task_run(task, run_id, dynamic_key="0", state=Running())
    return made.id


def test_runs_whose_process_is_gone_are_settled_and_no_others(client, monkeypatch):
    from prefect import task

    stage = task(lambda: None, name="stage")
    dead = [going(client, DEAD), going(client, DEAD, Pending())]
    alive = [
        going(client, process_identity(os.getpid())),
        going(client, ELSEWHERE),
        going(client),  # its process imports still
        going(client, state=Pending()),  # a worker has just taken it
    ]
    started = going(client, DEAD)  # and yet its worker's process says that it lives
    tasks = {run: task_of(client, run, stage) for run in (dead[0], alive[0])}

    settled, stages = reconcile.settle_prefect({str(started)})
    assert set(settled) == set(map(str, dead))
    assert stages == 1
    assert client.read_task_run(tasks[dead[0]]).state.is_crashed()
    assert client.read_task_run(tasks[alive[0]]).state.is_running()
    assert client.read_flow_run(dead[0]).state.message == "its process is gone"
    assert all(not client.read_flow_run(run).state.is_final() for run in [*alive, started])

    monkeypatch.setattr(reconcile, "UNMARKED", timedelta(0))  # long after
    later, _ = reconcile.settle_prefect({str(started)})
    assert set(map(str, alive[2:])) <= set(later)
    assert not set(map(str, [*alive[:2], started])) & set(later)


@pytest.mark.process
def test_the_process_of_a_run_that_a_worker_started_is_found():
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PREFECT__FLOW_RUN_ID": "of-a-worker"},
    ) as child:  # fmt: skip
        child.stdout.readline()
        assert "of-a-worker" in reconcile._alive()
        child.communicate()
    assert "of-a-worker" not in reconcile._alive()
