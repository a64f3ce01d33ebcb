"""Starting and stopping services: taken ports, ends while starting, a second command."""

import socket
import sys
import threading
import time

import pytest

from flows.local import processes, services
from flows.local.services import Service, ServiceError


@pytest.mark.slow
def test_a_port_of_something_else_is_named(var, said):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        health = f"http://127.0.0.1:{port}/health"
        probe = Service("probe", [sys.executable, "-c", "pass"], port, health, None)
        with pytest.raises(ServiceError, match=rf"port {port} is taken by process \d+.*not used"):
            services.start(probe, said.append)


@pytest.mark.process
def test_a_service_that_ends_shows_its_log(var, said):
    (var / "logs").mkdir()
    command = [sys.executable, "-c", "print('no room for me')"]
    dying = Service("probe", command, 1, "http://127.0.0.1:1/health", None)
    processes.start(dying.name, dying.command)
    with pytest.raises(ServiceError, match=r"ended while starting(.|\n)*no room for me"):
        services.wait_for(dying, said.append)


@pytest.mark.process
def test_what_takes_long_is_waited_for_and_told(var, said, monkeypatch):
    (var / "logs").mkdir()
    monkeypatch.setattr(services, "TELL_EVERY", 0.4)
    with pytest.raises(ServiceError, match=r"prefect nonsense failed:(.|\n)*nonsense"):
        services.prefect("nonsense", say=said.append)
    assert any("prefect nonsense: waiting for" in line for line in said)


@pytest.mark.process
def test_one_command_at_a_time_starts_services(var, said):
    order = []

    def second():
        with services.starting_alone(said.append):
            order.append("second")

    with services.starting_alone(said.append):
        waiting = threading.Thread(target=second)
        waiting.start()
        while not said:
            time.sleep(0.01)
        order.append("first")
    waiting.join(timeout=30)
    assert order == ["first", "second"]
    assert "waiting for it" in said[0]
