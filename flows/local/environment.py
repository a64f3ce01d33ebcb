"""What the local servers and the runs on them find in their environment."""

from __future__ import annotations

import os

from tasks.paths import HOST, mlflow_url, prefect_port, prefect_url, var_folder


def environment() -> dict[str, str]:
    """What the services and the flows they run find in their environment."""
    quiet = {
        "PREFECT_HOME": str(var_folder() / "prefect"),
        "PREFECT_API_URL": f"{prefect_url()}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # A page of another site gets no allowance to read, and no request without a token is taken.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(
            f"http://{host}:{prefect_port()}" for host in (HOST, "localhost")
        ),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_CLI_PROMPT": "false",
        "MLFLOW_TRACKING_URI": mlflow_url(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "DO_NOT_TRACK": "1",
        "GILL_VAR": str(var_folder()),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    # Stages run side by side and share the cores with the servers: idle threads must not spin for
    # long. Not at all is wrong too, since a training step is thousands of short parallel regions.
    threads = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1"}
    return {**threads, **os.environ, **quiet}
