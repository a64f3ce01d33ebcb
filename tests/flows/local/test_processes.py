"""Processes that a command leaves running: found again, told from others, stopped as a family."""

import subprocess
import sys

import psutil
import pytest

from data.io.atomic import write_json
from flows.local import processes


def record(process, started=None):
    write_json(
        processes.record(),
        {"probe": {"pid": process.pid, "started": started or process.create_time()}},
    )


@pytest.mark.process
def test_a_dead_or_foreign_process_is_not_ours(var):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = psutil.Process(child.pid)
    record(process)
    assert processes.process_of("probe") == process
    assert processes.process_of("worker") is None
    record(process, started=1.0)  # the number was given to another process since
    assert processes.process_of("probe") is None
    record(process)
    child.kill()
    child.wait()
    assert processes.process_of("probe") is None


@pytest.mark.process
def test_stopping_ends_the_whole_family(var):
    sleep = "import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleep!r}])"
    parent = psutil.Process(subprocess.Popen([sys.executable, "-c", code]).pid)
    while not (children := parent.children()):
        pass
    processes.stop(parent)
    assert psutil.wait_procs(children, timeout=5)[1] == []


@pytest.mark.process
def test_a_start_that_was_not_recorded_is_known_by_its_command(var):
    (var / "logs").mkdir()
    command = [sys.executable, "-c", "import time; time.sleep(61)"]
    started = processes.start("probe", command)
    try:
        processes.record().unlink()
        assert processes.found("probe", [*command, "other"]) is None
        assert processes.found("probe", command) == started
        assert processes.process_of("probe") == started
        assert processes.as_started_now(started, command)
        assert not processes.as_started_now(started, [*command, "--port", "1"])
    finally:
        processes.stop(started)
