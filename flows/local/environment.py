"""What the local servers and the runs on them find in their environment."""

from __future__ import annotations

import base64
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.paths import HOST, ROOT, mlflow_url, prefect_port, prefect_url, var_folder

PRIVATE = 0o077  # the umask: what servers and runs write is for their user alone


def private_folder(path: Path) -> Path:
    """Make a folder that only its user can enter; one that was made wider is closed."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.stat().st_mode & PRIVATE:
        path.chmod(0o700)
    return path


@contextmanager
def private_files() -> Iterator[None]:
    """What is written meanwhile is for its user alone."""
    before = os.umask(PRIVATE)
    try:
        yield
    finally:
        os.umask(before)


def temporary_folder() -> Path:
    """Where servers and runs put what is temporary: under ``var/``, emptied when all are stopped.

    A socket has its path in about a hundred bytes, so a deep ``var/`` leaves it to the system.
    """
    folder = var_folder() / "tmp"
    if len(str(folder)) > 60:
        return Path(tempfile.gettempdir())
    return private_folder(folder)


def auth_string() -> str | None:
    """User and password of this checkout's Prefect server, made once; None where it has none.

    ``GILL_PREFECT_AUTH=off`` starts the server without.
    """
    if os.environ.get("GILL_PREFECT_AUTH", "on").lower() in {"off", "0", "false", "no"}:
        return None
    path = private_folder(var_folder() / "prefect") / "auth"
    with suppress(FileExistsError):
        fresh = path.with_name(f"auth.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"gill:{secrets.token_urlsafe(24)}")
        try:
            os.link(fresh, path)  # whole from the first moment, and never twice
        finally:
            fresh.unlink()
    return path.read_text()


def page_link() -> str:
    """The link to the Prefect page that needs no typing; it carries the key of the server."""
    auth = auth_string()
    if auth is None:
        return prefect_url()
    return f"{prefect_url()}/open#{base64.b64encode(auth.encode()).decode()}"


def environment() -> dict[str, str]:
    """What the services and the flows they run find in their environment."""
    quiet = {
        "PREFECT_API_URL": f"{prefect_url()}/api",
        **server_settings(prefect_port()),
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_CLI_PROMPT": "false",
        "MLFLOW_TRACKING_URI": mlflow_url(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "DO_NOT_TRACK": "1",
        "GILL_VAR": str(var_folder()),
        "TMPDIR": str(temporary_folder()),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    auth = auth_string()
    if auth is not None:
        quiet["PREFECT_API_AUTH_STRING"] = auth
    # Stages run side by side and share the cores with the servers: idle threads must not spin for
    # long. Not at all is wrong too, since a training step is thousands of short parallel regions.
    threads = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1"}
    return {**threads, **os.environ, **quiet}


def server_settings(port: int) -> dict[str, str]:
    """Prefect's own settings for a server that no page of another site can use."""
    settings = {
        "PREFECT_HOME": str(var_folder() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # A page of another site gets no allowance to read, and no request without a token is taken.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_UI_API_URL": "/api",  # of the page's own origin, also through a forwarded port
        # `prefect deployment run --watch` shows what a run logs, and so why it failed.
        "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
        "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
    }
    auth = auth_string()
    return settings if auth is None else {**settings, "PREFECT_SERVER_API_AUTH_STRING": auth}


def write_client_settings() -> Path:
    """Let the ``prefect`` command find this checkout's server: ``prefect.toml``, which it reads.

    It lies in the checkout, where the command is run, or in the folder that ``GILL_VAR`` names.
    """
    folder = ROOT if var_folder() == ROOT / "var" else var_folder()
    auth = auth_string()
    text = (
        "# Written by `gill up`: how the prefect command reaches the server of this checkout.\n"
        f'[api]\nurl = "{prefect_url()}/api"\n' + (f'auth_string = "{auth}"\n' if auth else "")
    )
    path = folder / "prefect.toml"
    fresh = path.with_name(f"prefect.toml.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
    return path
