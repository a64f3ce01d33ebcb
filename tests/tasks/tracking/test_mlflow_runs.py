"""What is told from the outside about a process that recorded a run."""

import os
import subprocess
import sys

from tasks.tracking.mlflow_runs import is_lost, process_identity


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
