"""Runs the flow in a process of its own, with a Prefect server and folders of the test's own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def pipeline(tmp_path: Path, var: Path, *arguments: str) -> str:
    """Run ``python -m flows.pipeline`` on the tiny recipe; returns all that it printed."""
    environment = {
        **os.environ,
        "GILL_VAR": str(var),
        "PREFECT_API_URL": "",
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, "-m", "flows.pipeline", "--recipe", "tiny", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr
