"""The local Prefect server, MLflow server and worker: started once, found again, stopped cleanly.

All listen on loopback and keep what they write under ``var/``. What was started is recorded in
``var/services.json``; only that is ever stopped.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from data.io.atomic import write_json
from flows.local.databases import repair
from flows.local.environment import environment
from tasks.paths import HOST, ROOT, mlflow_port, mlflow_url, prefect_port, prefect_url, var_folder

POOL = "gill"
# A flow run cannot set its command, environment or folder: they are no variables of this template.
JOB_TEMPLATE = Path(__file__).with_name("work_pool.json")
START_TIMEOUT = 180.0


class ServiceError(RuntimeError):
    """A service cannot be started or does not answer; says what to do."""


@dataclass(frozen=True)
class Service:
    """A process to keep running, and how to see that it is well."""

    name: str
    command: list[str]
    port: int | None
    health: str | None
    database: Path | None


def services() -> list[Service]:
    """The three services in the order of starting."""
    var = var_folder()
    python = sys.executable
    return [
        Service(
            "prefect server",
            [python, "-m", "prefect", "server", "start", "--host", HOST]
            + ["--port", str(prefect_port())],
            prefect_port(),
            f"{prefect_url()}/api/health",
            var / "prefect" / "prefect.db",
        ),
        Service(
            "mlflow server",
            [python, "-m", "mlflow", "server", "--host", HOST, "--port", str(mlflow_port())]
            + ["--backend-store-uri", f"sqlite:///{var / 'mlflow.db'}", "--workers", "1"]
            + ["--default-artifact-root", (var / "mlartifacts").as_uri()],
            mlflow_port(),
            f"{mlflow_url()}/health",
            var / "mlflow.db",
        ),
        Service(
            "worker",
            [python, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
            + ["--name", "local"],
            None,
            None,
            None,
        ),
    ]


def _record() -> Path:
    return var_folder() / "services.json"


def recorded() -> dict[str, dict[str, float]]:
    """What this project started: name -> pid and start time."""
    if not _record().exists():
        return {}
    found: dict[str, dict[str, float]] = json.loads(_record().read_text())
    return found


def process_of(name: str) -> psutil.Process | None:
    """The live process of a service that this project started, or None."""
    entry = recorded().get(name)
    if entry is None:
        return None
    try:
        process = psutil.Process(int(entry["pid"]))
        same = abs(process.create_time() - entry["started"]) < 2
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def healthy(url: str) -> bool:
    """Whether an address answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:  # noqa: S310 (loopback http)
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def port_is_taken(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def start_all(say: Callable[[str], None]) -> None:
    """Start what is not up yet.

    Raises:
        ServiceError: a port belongs to something else, or a service does not come up in time.
    """
    var_folder().mkdir(parents=True, exist_ok=True)
    (var_folder() / "logs").mkdir(exist_ok=True)
    (var_folder() / "prefect").mkdir(exist_ok=True)
    started = [s for s in services()[:2] if _start(s, say)]
    for service in started:
        _await(service, say)
    _require_csrf_protection()
    _make_pool()
    worker = services()[2]
    if process_of(worker.name) is None:
        _spawn(worker)
        say("worker: started")


def _start(service: Service, say: Callable[[str], None]) -> bool:
    if service.port is None or service.health is None:
        raise ValueError(f"{service.name} has no port to wait for")
    if healthy(service.health):
        return False
    stale = process_of(service.name)
    if stale is not None:
        say(f"{service.name}: the process {stale.pid} does not answer; starting it anew")
        _stop(stale)
    if port_is_taken(service.port):
        raise ServiceError(
            f"port {service.port} is taken by something that is not a {service.name}. Stop it, or "
            "set GILL_PREFECT_PORT / GILL_MLFLOW_PORT to free ports (and PREFECT_API_URL for the "
            "prefect command)"
        )
    if service.database is not None:
        repair(service.database, say)
    _spawn(service)
    say(f"{service.name}: starting")
    return True


def _spawn(service: Service) -> None:
    log = (var_folder() / "logs" / f"{service.name.replace(' ', '-')}.log").open("ab")
    process = subprocess.Popen(
        service.command,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    log.close()
    entry = {"pid": process.pid, "started": psutil.Process(process.pid).create_time()}
    write_json(_record(), {**recorded(), service.name: entry})


def _await(service: Service, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    while not healthy(str(service.health)):
        waited = time.monotonic() - began
        if process_of(service.name) is None:
            raise ServiceError(f"the {service.name} ended while starting:\n{log_tail(service)}")
        if waited > START_TIMEOUT:
            raise ServiceError(
                f"the {service.name} did not answer within {START_TIMEOUT:.0f} s:\n"
                f"{log_tail(service)}"
            )
        time.sleep(0.5)
    say(f"{service.name}: up after {time.monotonic() - began:.0f} s")


def log_tail(service: Service, lines: int = 15) -> str:
    """The end of a service's log."""
    path = var_folder() / "logs" / f"{service.name.replace(' ', '-')}.log"
    text = path.read_text(errors="replace") if path.exists() else "(no log)"
    return "\n".join(text.splitlines()[-lines:]) + f"\n(whole log: {path})"


def _require_csrf_protection() -> None:
    """A server that was found running may be of an earlier version, or of something else."""
    try:
        # A token is a write: on a busy machine it takes far longer than a sign of health.
        address = f"{prefect_url()}/api/csrf-token?client=gill"
        with urllib.request.urlopen(address, timeout=START_TIMEOUT):  # noqa: S310 (loopback http)
            return
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise ServiceError(f"the Prefect server fails: {error}") from error
        raise ServiceError(
            f"the Prefect server at {prefect_url()} takes changes from any page that is open in a "
            "browser: it was started by an earlier version or by something else. Stop it "
            "(`make stop`) and start again; finished work is kept"
        ) from error
    except OSError as error:
        raise ServiceError(f"the Prefect server does not answer: {error}") from error


def _make_pool() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "work-pool", "create", POOL]
        + ["--type", "process", "--overwrite", "--base-job-template", str(JOB_TEMPLATE)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ServiceError(f"the work pool could not be made:\n{done.stdout}{done.stderr}")


def _stop(process: psutil.Process) -> None:
    family = [process]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)
        process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=15)
    for left in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()


def stop_all(say: Callable[[str], None]) -> None:
    """Stop what this project started, the worker before the servers it talks to."""
    for service in reversed(services()):
        process = process_of(service.name)
        if process is None:
            say(f"{service.name}: not running")
            continue
        _stop(process)
        say(f"{service.name}: stopped")
    _record().unlink(missing_ok=True)
