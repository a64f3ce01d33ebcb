"""The local servers as `gill up` starts them, once for all tests that need them."""

import base64
import socket
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from flows.local import services
from flows.local.environment import auth_string, environment
from tasks.paths import mlflow_url, prefect_url


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Servers:
    """Where they are, and how this checkout's programs get in."""

    var: Path
    variables: dict[str, str]
    prefect: str
    mlflow: str
    headers: dict[str, str]
    environment: dict[str, str]


@pytest.fixture(scope="session")
def started_servers(tmp_path_factory):
    """Both servers with the work pool, and no worker."""
    folder = tmp_path_factory.mktemp("servers") / "var"
    variables = {
        "GILL_VAR": str(folder),
        "GILL_PREFECT_PORT": str(free_port()),
        "GILL_MLFLOW_PORT": str(free_port()),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            with services.starting_alone(print):
                services.start_servers(print)
                services.make_pool(print)
            basic = base64.b64encode(str(auth_string()).encode()).decode()
            headers = {"Authorization": f"Basic {basic}"}
            found = (prefect_url(), mlflow_url(), headers, environment())
            patch.undo()
            yield Servers(folder, variables, *found)
        finally:
            for name, value in variables.items():
                patch.setenv(name, value)
            services.stop_all(print)


@pytest.fixture
def servers(started_servers, monkeypatch):
    """The servers, with the environment of the command that started them."""
    for name, value in started_servers.variables.items():
        monkeypatch.setenv(name, value)
    return started_servers


@pytest.fixture
def insider(servers):
    """A program of this checkout: it has the key and a token against forged requests."""
    with httpx.Client(base_url=f"{servers.prefect}/api", timeout=60) as client:
        client.headers.update(servers.headers)
        token = client.get("/csrf-token", params={"client": "test"}).json()["token"]
        client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "test"})
        yield client


@pytest.fixture
def said():
    """What the code under test told its user."""
    return []
