"""Starting and stopping: taken ports, dead processes and broken databases are said or mended."""

import socket
import sqlite3
import subprocess
import sys

import psutil
import pytest

from data.artifacts import write_json
from flows.local import main, services
from flows.local.services import Service, ServiceError


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
    services._repair(path, said.append)
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
    services._repair(path, said.append)
    assert not path.exists()
    (aside,) = tmp_path.glob("mlflow.db.damaged-*")
    assert aside.read_bytes() == before
    assert "moved to" in said[0]


def test_a_run_that_left_no_summary_is_told_from_one_that_failed(tmp_path):
    summary, log = tmp_path / "last_run.json", tmp_path / "watch.log"
    log.write_text("the watcher saw a crash")
    assert "was killed" in main._failure(summary, 1, log)
    assert "the watcher saw a crash" in main._failure(summary, 1, log)
    write_json(summary, {"state": "failed", "error": "no images"})
    assert main._failure(summary, 0, log) == "the run failed: no images"
    write_json(summary, {"state": "completed", "error": None})
    assert main._failure(summary, 0, log) is None
