"""Runs the pipeline or a stage on the local servers, watched, and sums it up in a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flows.local import services
from flows.local.environment import environment
from flows.local.follow import follow
from flows.local.reconcile import reconcile
from flows.local.services import ServiceError
from flows.local.summary import failure_of, table_of
from tasks.paths import ROOT, mlflow_url, prefect_url, var_folder


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def up() -> None:
    """Start what is missing and make the deployments.

    Raises:
        ServiceError: a server cannot be started, or Prefect refuses the deployments.
    """
    services.start_all(say)
    os.environ.update(environment())
    reconcile(say)
    _prefect("deploy", "--all", timeout=180)
    say(f"{prefect_url()} shows the runs, {mlflow_url()} the results")


def run(recipe: str, overrides: Mapping[str, Any], stage: str | None, force: bool) -> int:
    """Run the pipeline or a stage to its end; returns 0 if all went well.

    Raises:
        ServiceError: a server cannot be started, or Prefect refuses the deployments.
    """
    began = time.monotonic()
    up()
    name = f"gill-run-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    parameters = {"recipe": recipe, "overrides": dict(overrides), "stage": stage, "force": force}
    command = [sys.executable, "-m", "prefect", "deployment", "run"]
    command += [f"gill/{stage or 'full-pipeline'}", "--watch", "--flow-run-name", name]
    command += ["--params", json.dumps(parameters)]
    log, told = var_folder() / "logs" / "watch.log", var_folder() / "last_run.json"
    told.unlink(missing_ok=True)
    with log.open("wb") as output:
        watch = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        lost = follow(watch, name, say)
    if lost:
        watch.kill()
    failed = lost or failure_of(told, watch.returncode, log)
    if failed:
        reconcile(say)
        say(f"ERROR: {failed}\nRun the same command again: finished work is kept.")
        return 1
    summary = json.loads(told.read_text())
    say(table_of(summary))
    say(f"whole command: {time.monotonic() - began:.0f} s; the same as JSON: {told}")
    say(f"MLflow:  {summary['mlflow_url']}\nPrefect: {summary['prefect_url']}")
    return 0


def status() -> None:
    """Say what is up."""
    for service in services.services():
        process = services.process_of(service.name)
        answers = service.health is None or services.healthy(service.health)
        state = f"pid {process.pid}" if process else "not started by this project"
        say(f"{service.name}: {state}{'' if answers else ', does not answer'}")


def _prefect(*arguments: str, timeout: float) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ServiceError(f"prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
