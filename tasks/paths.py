"""Where the checkout is, where runs write, and at which ports the local servers listen."""

from __future__ import annotations

import json
import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
LAST_RUN = "last_run.json"  # in the folder of runs: the record of the run that ended last


def var_folder() -> Path:
    """Everything that runs write: ``var/`` in the checkout, or ``GILL_VAR``."""
    return Path(os.environ.get("GILL_VAR", ROOT / "var")).absolute()


def ports_file() -> Path:
    """The ports of this checkout's servers, written when they were first started."""
    return var_folder() / "ports.json"


def prefect_port() -> int:
    """Port of the local Prefect server: ``GILL_PREFECT_PORT``, else this checkout's, else 4200."""
    return _port("GILL_PREFECT_PORT", "prefect", 4200)


def mlflow_port() -> int:
    """Port of the local MLflow server: ``GILL_MLFLOW_PORT``, else this checkout's, else 5000."""
    return _port("GILL_MLFLOW_PORT", "mlflow", 5000)


def _port(variable: str, server: str, usual: int) -> int:
    if variable in os.environ:
        return int(os.environ[variable])
    try:
        return int(json.loads(ports_file().read_text())[server])
    except (OSError, ValueError, KeyError, TypeError):
        return usual


def prefect_url() -> str:
    """Address of the local Prefect page."""
    return f"http://{HOST}:{prefect_port()}"


def mlflow_url() -> str:
    """Address of the local MLflow page."""
    return f"http://{HOST}:{mlflow_port()}"
