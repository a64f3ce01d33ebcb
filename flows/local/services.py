"""The local Prefect server, MLflow server and worker: started once, found again, stopped cleanly.

All listen on loopback, keep what they write under ``var/``, and belong to this checkout: a server
that is found on a port and was not started by it is named, and never used or stopped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from flows.local import ports, processes
from flows.local.environment import (
    PRIVATE,
    environment,
    private_files,
    private_folder,
    write_client_settings,
)
from tasks.paths import HOST, ROOT, mlflow_port, mlflow_url, prefect_port, prefect_url, var_folder
from tasks.tracking.databases import being_made, prepare_mlflow, repair

POOL = "gill"
# A flow run cannot set its command, environment or folder: they are no variables of this template.
JOB_TEMPLATE = Path(__file__).with_name("work_pool.json")
# On a loaded machine a start takes minutes: what lives is waited for, and the waiting is told.
PATIENCE, TELL_EVERY = 3600.0, 30.0

Say = Callable[[str], None]


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
    prepare: Callable[[Path, Say], None] = repair  # the database, before the start
    grace: float = 15.0  # seconds from SIGTERM to SIGKILL


def prefect_server() -> Service:
    """The Prefect server with its guard."""
    command = [sys.executable, "-m", "flows.local.prefect_server", "--port", str(prefect_port())]
    health, database = f"{prefect_url()}/api/health", var_folder() / "prefect" / "prefect.db"
    return Service("prefect server", command, prefect_port(), health, database)


def mlflow_server() -> Service:
    """The MLflow server; it refuses foreign hosts by itself, and is told which are not."""
    port, database = mlflow_port(), var_folder() / "mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{database}", "--workers", "1"]
    command += ["--default-artifact-root", (var_folder() / "mlartifacts").as_uri()]
    # With any port, so that a forwarded one works; loopback names alone cannot be rebound.
    command += ["--allowed-hosts", f"{HOST},localhost,{HOST}:*,localhost:*"]
    # Its first process stays when its server has ended, so there is nothing to wait for.
    health = f"{mlflow_url()}/health"
    return Service("mlflow server", command, port, health, database, prepare_mlflow, grace=3)


def worker() -> Service:
    """The worker, which starts the flow runs."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]
    return Service("worker", [*command, "--type", "process", "--name", "local"], None, None, None)


def services() -> list[Service]:
    """The three services in the order of starting."""
    return [prefect_server(), mlflow_server(), worker()]


def healthy(url: str) -> bool:
    """Whether an address answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:  # noqa: S310 (loopback http)
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def runs_here(service: Service) -> bool:
    """Whether a service of this checkout lives, and answers if it is one that does."""
    if processes.found(service.name, service.command) is None:
        return False
    return service.health is None or healthy(service.health)


@contextmanager
def starting_alone(say: Say) -> Iterator[None]:
    """One command at a time starts services; the kernel lets go of a killed one's claim.

    What it writes is for its user alone.
    """
    lock = FileLock(private_folder(var_folder()) / "services.lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("another command is starting the servers; waiting for it")
        lock.acquire()
    try:
        with private_files():
            yield
    finally:
        lock.release()


def start_all(say: Say) -> None:
    """Start what is not up yet, while no other command does; see ``starting_alone``.

    Raises:
        ServiceError: a port that the user set belongs to something else, or a service ends.
    """
    start_servers(say)
    write_client_settings()
    _start_worker(say)


def start_servers(say: Say) -> None:
    """Start the two servers and wait for them.

    Raises:
        ServiceError: a port that the user set belongs to something else, or a service ends.
    """
    for name in (".", "logs", "prefect"):
        private_folder(var_folder() / name)
    try:
        running = {"prefect": runs_here(prefect_server()), "mlflow": runs_here(mlflow_server())}
        ports.settle(running, say)
    except ports.PortError as error:
        raise ServiceError(str(error)) from error
    fresh = [server for server in (prefect_server(), mlflow_server()) if start(server, say)]
    for server in fresh:
        wait_for(server, say)


def _start_worker(say: Say) -> None:
    command = worker().command
    process = processes.found("worker", command)
    if process is not None:
        if processes.as_started_now(process, command):
            return
        processes.stop(process)
    make_pool(say)
    processes.start("worker", command)
    say("worker: started")


def make_pool(say: Say) -> None:
    """Make the work pool, or bring it to this version."""
    prefect("work-pool", "create", POOL, "--type", "process", "--overwrite",
            "--base-job-template", str(JOB_TEMPLATE), say=say)  # fmt: skip


def start(service: Service, say: Say) -> bool:
    """Start a server unless this checkout's is there; returns whether to wait for it.

    Raises:
        ServiceError: something else listens on its port.
    """
    process = processes.found(service.name, service.command)
    if process is not None:
        answers, young = healthy(str(service.health)), time.time() - process.create_time() < 600
        if (answers or young) and processes.as_started_now(process, service.command):
            return not answers  # a young one was begun by a command that was interrupted
        problem = "runs with other settings" if answers else "does not answer"
        say(f"{service.name}: process {process.pid} {problem}; starting it anew")
        processes.stop(process)
    if service.port is not None and ports.is_taken(service.port):
        raise ServiceError(
            f"port {service.port} is taken by {ports.holder(service.port)}, which is no "
            f"{service.name} of this checkout and is not used"
        )
    if service.database is not None:
        service.prepare(service.database, say)
    processes.start(service.name, service.command)
    say(f"{service.name}: starting")
    return True


def wait_for(service: Service, say: Say) -> None:
    """Wait until a server answers, as long as its process lives.

    Raises:
        ServiceError: it ended, or did not answer for an hour.
    """

    def problem() -> str:
        if processes.process_of(service.name) is None:
            return f"the {service.name} ended while starting:\n{processes.log_tail(service.name)}"
        return ""

    seconds = _patiently(
        lambda: healthy(str(service.health)), problem, service.name,
        processes.log_of(service.name), say,
    )  # fmt: skip
    if service.database is not None:
        being_made(service.database).unlink(missing_ok=True)
    say(f"{service.name}: up after {seconds:.0f} s")


def prefect(*arguments: str, say: Say) -> None:
    """Run the ``prefect`` command against this checkout's server, however long it takes.

    Raises:
        ServiceError: it failed; with what it said.
    """
    log = processes.log_of(f"prefect-{arguments[0]}")
    with log.open("wb") as output:
        command = subprocess.Popen(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, umask=PRIVATE,
        )  # fmt: skip
    title = f"prefect {arguments[0]}"
    try:
        _patiently(lambda: command.poll() is not None, str, title, log, say)
    finally:
        if command.poll() is None:
            command.kill()
            command.wait()
    if command.returncode != 0:
        raise ServiceError(f"{title} failed:\n{log.read_text(errors='replace')}")


def _patiently(
    done: Callable[[], bool], problem: Callable[[], str], title: str, log: Path, say: Say
) -> float:
    began = told = time.monotonic()
    while not done():
        now = time.monotonic()
        if failure := problem():
            raise ServiceError(failure)
        if now - began > PATIENCE:
            raise ServiceError(f"{title}: not done after {PATIENCE:.0f} s; see {log}")
        if now - told > TELL_EVERY:
            told = now
            say(f"{title}: waiting for {now - began:.0f} s; Ctrl-C ends the waiting (log: {log})")
        time.sleep(0.5)
    return time.monotonic() - began


def stop_all(say: Say) -> None:
    """Stop what this checkout started, the worker before the servers it talks to."""
    for service in reversed(services()):
        process = processes.found(service.name, service.command)
        if process is None:
            say(f"{service.name}: not running")
            continue
        processes.stop(process, service.grace)
        say(f"{service.name}: stopped")
    processes.record().unlink(missing_ok=True)
    shutil.rmtree(var_folder() / "tmp", ignore_errors=True)


def status(say: Say) -> None:
    """Say what is up, and what else holds a port of this checkout."""
    for service in services():
        process = processes.found(service.name, service.command)
        if process is not None:
            answers = service.health is None or healthy(service.health)
            say(f"{service.name}: pid {process.pid}{'' if answers else ', does not answer'}")
        elif service.port is not None and ports.is_taken(service.port):
            say(
                f"{service.name}: not running; port {service.port} is taken by "
                f"{ports.holder(service.port)}, which is not of this checkout"
            )
        else:
            say(f"{service.name}: not running")
