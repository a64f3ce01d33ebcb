"""Runs the flow in a process of its own, with a Prefect server and folders of the test's own."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]


def started(
    tmp_path: Path, var: Path, *arguments: str, output: IO[str] | int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Start ``python -m flows.pipeline`` on the tiny recipe.

    Args:
        output: where what it prints goes. A pipe must be read, or the flow stands when it is full.
    """
    environment = {
        **os.environ,
        "GILL_VAR": str(var),
        "PREFECT_API_URL": "",
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline", "--recipe", "tiny", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_as_from_a_terminal,  # noqa: PLW1509 it takes no lock
    )


def _as_from_a_terminal() -> None:
    # A shell starts what is to run in the background with SIGINT ignored, and children inherit it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def pipeline(tmp_path: Path, var: Path, *arguments: str) -> str:
    """Run ``python -m flows.pipeline`` on the tiny recipe; returns all that it printed."""
    process = started(tmp_path, var, *arguments)
    said, _ = process.communicate()
    assert process.returncode == 0, said[-3000:]
    return said
