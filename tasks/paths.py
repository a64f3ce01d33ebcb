"""Where the checkout is, where runs write, and at which ports the local servers listen."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"


def var_folder() -> Path:
    """Everything that runs write: ``var/`` in the checkout, or ``GILL_VAR``."""
    return Path(os.environ.get("GILL_VAR", ROOT / "var")).absolute()


def prefect_port() -> int:
    """Port of the local Prefect server: ``GILL_PREFECT_PORT`` or 4200."""
    return int(os.environ.get("GILL_PREFECT_PORT", "4200"))


def mlflow_port() -> int:
    """Port of the local MLflow server: ``GILL_MLFLOW_PORT`` or 5000."""
    return int(os.environ.get("GILL_MLFLOW_PORT", "5000"))


def prefect_url() -> str:
    """Address of the local Prefect page."""
    return f"http://{HOST}:{prefect_port()}"


def mlflow_url() -> str:
    """Address of the local MLflow page."""
    return f"http://{HOST}:{mlflow_port()}"
