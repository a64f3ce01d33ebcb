"""Fixtures that all tests share. Nothing here writes outside pytest's temporary folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from hostile import Server, serving

pytest_plugins = ["trained_tiny"]

# Before torch, Prefect and MLflow are imported: quiet, and no spinning threads beside each other.
os.environ |= {
    "KMP_BLOCKTIME": "0",
    "OMP_WAIT_POLICY": "passive",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh ``var`` folder, which the code under test uses."""
    folder = tmp_path / "var"
    folder.mkdir()
    monkeypatch.setenv("GILL_VAR", str(folder))
    return folder


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A temporary Prefect server with its own database."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def authority() -> trustme.CA:
    """A certificate authority of the test's own."""
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[Server]:
    """A real HTTP server on loopback that answers as the test says."""
    with serving(authority) as served:
        yield served
