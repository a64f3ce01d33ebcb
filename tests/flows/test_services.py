"""Starting and stopping: taken ports, dead processes and broken databases are said or mended."""

import socket
import sqlite3
import subprocess
import sys

import httpx
import psutil
import pytest

from data.io.atomic import write_json
from flows.local import services
from flows.local.databases import repair
from flows.local.reconcile import crash_lost_flow_runs
from flows.local.services import Service, ServiceError
from flows.local.summary import failure_of
from tasks.paths import prefect_url


@pytest.fixture
def said():
    return []


def service(port, database=None):
    return Service("probe", [sys.executable, "-c", "pass"], port,
                   f"http://127.0.0.1:{port}/health", database)  # fmt: skip


def test_a_port_of_something_else_is_an_error_with_a_remedy(var, said):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ServiceError, match=r"is taken.*GILL_PREFECT_PORT"):
            services._start(service(other.getsockname()[1]), said.append)


def test_a_service_that_ends_shows_its_log(var, said):
    (var / "logs").mkdir()
    command = [sys.executable, "-c", "print('no room for me')"]
    dying = Service("probe", command, 1, "http://127.0.0.1:1/health", None)
    services._spawn(dying)
    with pytest.raises(ServiceError, match=r"ended while starting(.|\n)*no room for me"):
        services._await(dying, said.append)


def record(process, started=None):
    write_json(
        services._record(),
        {"probe": {"pid": process.pid, "started": started or process.create_time()}},
    )


def test_a_dead_or_foreign_process_is_not_ours(var):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = psutil.Process(child.pid)
    record(process)
    assert services.process_of("probe") == process
    assert services.process_of("worker") is None
    record(process, started=1.0)  # the number was given to another process since
    assert services.process_of("probe") is None
    record(process)
    child.kill()
    child.wait()
    assert services.process_of("probe") is None


def test_stopping_ends_the_whole_family(var):
    sleep = "import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleep!r}])"
    parent = psutil.Process(subprocess.Popen([sys.executable, "-c", code]).pid)
    while not (children := parent.children()):
        pass
    services._stop(parent)
    assert psutil.wait_procs(children, timeout=5)[1] == []


def make_database(path, versions):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version TEXT)")
        connection.executemany("INSERT INTO alembic_version VALUES (?)", [[v] for v in versions])
    connection.close()


def test_a_whole_database_is_left_alone(tmp_path, said):
    path = tmp_path / "mlflow.db"
    make_database(path, ["abc"])
    repair(path, said.append)
    assert path.exists()
    assert not said


@pytest.mark.parametrize("kind", ["garbage", "empty", "half made"])
def test_a_broken_database_is_moved_aside(tmp_path, said, kind):
    path = tmp_path / "mlflow.db"
    if kind == "garbage":
        path.write_bytes(b"this is no database" * 400)
    elif kind == "empty":
        path.touch()
    else:
        make_database(path, [])
    before = path.read_bytes()
    repair(path, said.append)
    assert not path.exists()
    (aside,) = tmp_path.glob("mlflow.db.damaged-*")
    assert aside.read_bytes() == before
    assert "moved to" in said[0]


def test_a_run_that_left_no_summary_is_told_from_one_that_failed(tmp_path):
    summary, log = tmp_path / "last_run.json", tmp_path / "watch.log"
    log.write_text("the watcher saw a crash")
    assert "was killed" in failure_of(summary, 1, log)
    assert "the watcher saw a crash" in failure_of(summary, 1, log)
    write_json(summary, {"state": "failed", "error": "no images"})
    assert failure_of(summary, 0, log) == "the run failed: no images"
    write_json(summary, {"state": "completed", "error": None})
    assert failure_of(summary, 0, log) is None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def prefect_service(tmp_path_factory):
    """The Prefect server as `make run` starts it, with its work pool; its API's address."""
    folder = tmp_path_factory.mktemp("services")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GILL_VAR", str(folder))
        patch.setenv("GILL_PREFECT_PORT", str(free_port()))
        for name in ("logs", "prefect"):
            (folder / name).mkdir()
        server = services.services()[0]
        services._start(server, lambda _: None)
        try:
            services._await(server, lambda _: None)
            services._make_pool()
            yield f"{prefect_url()}/api"
        finally:
            services.stop_all(lambda _: None)


def test_a_page_of_another_site_can_neither_read_nor_run(prefect_service):
    foreign = {"Origin": "http://evil.example"}
    with httpx.Client(base_url=prefect_service, timeout=30) as client:
        asked = {**foreign, "Access-Control-Request-Method": "POST"}
        assert client.options("/flow_runs/filter", headers=asked).status_code == 400
        for answer in (
            client.get("/health", headers=foreign),
            client.post("/flow_runs/filter", headers=foreign, json={}),
        ):
            assert "access-control-allow-origin" not in answer.headers
        assert answer.status_code == 403, "a request without a token was taken"


def test_a_flow_run_cannot_set_its_command_or_environment(prefect_service):
    with httpx.Client(base_url=prefect_service, timeout=30) as client:
        token = client.get("/csrf-token", params={"client": "test"}).json()["token"]
        client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "test"})
        flow = client.post("/flows/", json={"name": "probe"}).json()["id"]
        made = client.post(
            "/deployments/", json={"name": "probe", "flow_id": flow, "work_pool_name": "gill"}
        ).json()["id"]

        def run(**variables):
            return client.post(
                f"/deployments/{made}/create_flow_run", json={"job_variables": variables}
            )

        assert run().status_code == 201
        for name, value in (("command", "id"), ("env", {"A": "1"}), ("working_dir", "/")):
            answer = run(**{name: value})
            assert answer.status_code == 422, answer.text
            assert f"'{name}' was unexpected" in answer.text


def test_runs_whose_process_is_gone_are_settled(prefect_service):
    """One of a worker that lives, one of a dead worker, one that a process runs by itself."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Running

    @flow(name="gill")
    def probe():
        pass

    with (
        temporary_settings({PREFECT_API_URL: prefect_service}),
        get_client(sync_client=True) as client,
    ):
        deployment = client.create_deployment(client.create_flow(probe), "settled")
        started = [client.create_flow_run_from_deployment(deployment) for _ in range(2)]
        for run in started:
            client.set_flow_run_state(run.id, Running(), force=True)
        alone = client.create_flow_run(probe, state=Running())
        living, dead = (str(run.id) for run in started)
        assert crash_lost_flow_runs({living}, in_process=True) == [dead]
        assert client.read_flow_run(dead).state.is_crashed()
        assert crash_lost_flow_runs({living}, in_process=False) == [str(alone.id)]
