"""A Prefect server for one run that no worker started, guarded like the lasting one."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    get_current_settings,
    temporary_settings,
)

from flows.local import ports, processes, services
from flows.local.environment import PRIVATE, auth_string, private_folder, server_settings
from tasks.paths import HOST, ROOT, prefect_url, var_folder
from tasks.tracking.databases import being_made, repair

LOG = "temporary prefect server"


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a run in this process end cleanly, with one line, when it is stopped from outside."""
    os.umask(PRIVATE)
    # Without it the default action ends this process and leaves its server and workers to itself.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except services.ServiceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to go on: finished work is kept")
        sys.exit(128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def reachable_server() -> Iterator[None]:
    """Use a Prefect server for the runs of this process.

    That is the one that the user's settings of Prefect name if it answers, else the one of this
    checkout if it runs, else a temporary one, which ends with this process however that ends.

    Raises:
        ServiceError: the temporary one does not start.
    """
    ours, named = f"{prefect_url()}/api", get_current_settings().api.url or ""
    if named not in {"", ours} and _answers(named):
        yield
        return
    if services.runs_here(services.prefect_server()):
        with _as_client_of(ours):
            yield
        return
    print(f"no Prefect server at {named or 'any address'}; this run has a temporary one")
    with own_server():
        yield


@contextmanager
def own_server() -> Iterator[None]:
    """Use a temporary Prefect server, which ends with this process however that ends.

    Raises:
        ServiceError: it does not start.
    """
    server, address = _started()
    # Not sooner: when the process ends, Prefect still sends the last of its logs and events.
    atexit.register(_stop, server)
    with _as_client_of(address):
        yield


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(timeout=10)
    server.kill()
    server.wait()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=3).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def _as_client_of(address: str) -> Iterator[None]:
    given = {PREFECT_API_URL: address, PREFECT_API_AUTH_STRING: auth_string()}
    with temporary_settings(given):
        yield


def _started() -> tuple[subprocess.Popen[bytes], str]:
    """Start one on the database of this checkout, so that its runs are seen there later."""
    database = private_folder(var_folder() / "prefect") / "prefect.db"
    private_folder(var_folder() / "logs")
    with services.starting_alone(print):
        repair(database, print)
        port = ports.any_port()
        environment = {
            **os.environ,
            **server_settings(port),
            "PREFECT_API_URL": f"http://{HOST}:{port}/api",
            "PREFECT_UI_ENABLED": "false",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "DO_NOT_TRACK": "1",
        }
        command = [sys.executable, "-m", "flows.local.prefect_server", "--port", str(port)]
        with processes.log_of(LOG).open("ab") as log:
            server = subprocess.Popen(
                [*command, "--parent", str(os.getpid())],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, umask=PRIVATE,
            )  # fmt: skip
        try:
            while not services.healthy(f"http://{HOST}:{port}/api/health"):
                if server.poll() is not None:
                    raise services.ServiceError(
                        f"the {LOG} ended while starting:\n{processes.log_tail(LOG)}"
                    )
                time.sleep(0.2)
        except BaseException:
            server.kill()
            server.wait()
            raise
        being_made(database).unlink(missing_ok=True)
    return server, f"http://{HOST}:{port}/api"
