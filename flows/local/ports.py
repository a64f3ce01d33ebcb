"""Each checkout's servers have ports of their own; whose a taken port is, is said."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

import psutil

from data.io.atomic import write_json
from tasks.paths import HOST, mlflow_port, ports_file, prefect_port

VARIABLES = {"prefect": "GILL_PREFECT_PORT", "mlflow": "GILL_MLFLOW_PORT"}


class PortError(RuntimeError):
    """A port that the user asked for belongs to something else."""


def is_taken(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def is_free(port: int) -> bool:
    """Whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(first: int) -> int:
    """The first free loopback port from a number on.

    Raises:
        PortError: none of a hundred is free.
    """
    for port in range(first, min(first + 100, 65536)):
        if is_free(port):
            return port
    raise PortError(f"no port from {first} to {first + 99} is free")


def any_port() -> int:
    """A free loopback port that the kernel picks, so that two checkouts do not pick the same."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def holder(port: int) -> str:
    """Who listens on a port, in words: number, command and folder, as far as this user may see."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                process = psutil.Process(connection.pid)
                command = " ".join(process.cmdline())[:120]
                return f"process {process.pid} ({command}) in {process.cwd()}"
    except (psutil.Error, OSError, ValueError):
        pass
    return "a process of another user, or one that is going"


def settle(running: Mapping[str, bool], say: Callable[[str], None]) -> None:
    """Record a port for each server: its own if that is free or it runs there, else a free one.

    Args:
        running: whether this checkout's server of each name runs.
        say: told when a port is not the usual one, and who has that.

    Raises:
        PortError: the user asked for a port, and something else listens there.
    """
    found = {"prefect": prefect_port(), "mlflow": mlflow_port()}
    for server, variable in VARIABLES.items():
        port = found[server]
        if running[server] or is_free(port):
            continue
        if variable in os.environ:
            raise PortError(
                f"port {port} of {variable} is taken by {holder(port)}, which is not of this "
                "checkout and is not used. Stop it, or set another port"
            )
        found[server] = free_port(port + 1)
        say(
            f"port {port} is taken by {holder(port)}, which is not of this checkout and is not "
            f"used; this checkout's {server} server takes port {found[server]}"
        )
    write_json(ports_file(), found)
