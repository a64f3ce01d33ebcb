"""Ports belong to a checkout: what listens there and is not of it is named and not used."""

import os
import socket

import pytest

from flows.local import ports
from tasks.paths import ports_file

pytestmark = pytest.mark.slow  # something listens


@pytest.fixture
def other():
    """Something else that listens on a port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def settled(monkeypatch, port, running, said):
    """Settle ports where the usual one of Prefect is ``port``."""
    for name in ports.VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    ports_file().write_text(f'{{"prefect": {port}, "mlflow": {ports.free_port(5100)}}}')
    ports.settle({"prefect": running, "mlflow": False}, said.append)
    return ports.prefect_port()


def test_a_port_of_something_else_is_named_and_another_one_taken(var, other, said, monkeypatch):
    found = settled(monkeypatch, other, False, said)
    assert found != other
    assert ports.is_free(found)
    (line,) = said
    assert str(other) in line
    assert f"process {os.getpid()}" in line
    assert f"takes port {found}" in line


def test_where_our_server_runs_its_port_stays(var, other, said, monkeypatch):
    assert settled(monkeypatch, other, True, said) == other
    assert not said


def test_a_port_that_the_user_set_is_never_changed(var, other, said, monkeypatch):
    monkeypatch.setenv("GILL_PREFECT_PORT", str(other))
    with pytest.raises(ports.PortError, match=rf"{other} of GILL_PREFECT_PORT.*{os.getpid()}"):
        ports.settle({"prefect": False, "mlflow": False}, said.append)
    assert not ports_file().exists()
