"""Processes that outlive the command that started them: recorded, found again, stopped as a family.

What was started is recorded in ``var/services.json``. A command that is killed between the start
and the record leaves a process that is known by its command and by ``GILL_VAR`` in its environment.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

from data.io.atomic import write_json
from flows.local.environment import PRIVATE, environment
from tasks.paths import ROOT, var_folder


def record() -> Path:
    """The file that says what was started."""
    return var_folder() / "services.json"


def recorded() -> dict[str, dict[str, float]]:
    """What this checkout started: name -> pid and start time."""
    try:
        found: dict[str, dict[str, float]] = json.loads(record().read_text())
    except (OSError, ValueError):
        return {}
    return found


def process_of(name: str) -> psutil.Process | None:
    """The live process of a service that this checkout started, or None."""
    entry = recorded().get(name)
    if entry is None:
        return None
    try:
        process = psutil.Process(int(entry["pid"]))
        same = abs(process.create_time() - entry["started"]) < 2
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def found(name: str, command: Sequence[str]) -> psutil.Process | None:
    """The live process of a service, also one whose start was not recorded any more."""
    known = process_of(name)
    if known is not None:
        return known
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if (
                process.cmdline() == list(command)
                and process.environ().get("GILL_VAR") == str(var_folder())
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                _remember(name, process)
                return process
    return None


# What the environment of a service must have in common with that of this command.
_SETTINGS = ("GILL_VAR", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI")


def as_started_now(process: psutil.Process, command: Sequence[str]) -> bool:
    """Whether a service runs as it would be started now: no earlier version, other port or key."""
    wanted = environment()
    try:
        has = process.environ()
        same = all(has.get(name) == wanted.get(name) for name in _SETTINGS)
        return same and process.cmdline() == list(command)
    except psutil.Error:
        return False


def start(name: str, command: Sequence[str]) -> psutil.Process:
    """Start a service in a session of its own, which a Ctrl-C of this command does not reach."""
    with log_of(name).open("ab") as log:
        started = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=PRIVATE,
        )
    process = psutil.Process(started.pid)
    _remember(name, process)
    return process


def _remember(name: str, process: psutil.Process) -> None:
    entry = {"pid": process.pid, "started": process.create_time()}
    write_json(record(), {**recorded(), name: entry})


def log_of(name: str) -> Path:
    """Where a service writes what it says."""
    return var_folder() / "logs" / f"{name.replace(' ', '-')}.log"


def log_tail(name: str, lines: int = 15) -> str:
    """The end of a service's log."""
    path = log_of(name)
    text = path.read_text(errors="replace") if path.exists() else "(no log)"
    return "\n".join(text.splitlines()[-lines:]) + f"\n(whole log: {path})"


def stop(process: psutil.Process, grace: float = 15.0) -> None:
    """End a process and all that it started, at first kindly."""
    family = [process]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)
        process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=grace)
    for left in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
