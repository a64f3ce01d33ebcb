"""Runs the pipeline or a stage on the local servers, watched, and sums it up in a table."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flows.local import automations, services
from flows.local.environment import environment, page_link
from flows.local.follow import cancel, follow
from flows.local.reconcile import reconcile
from flows.local.summary import failure_of, table_of
from tasks.paths import mlflow_url, var_folder

AGAIN = "Run the same command again to go on: finished work is kept."


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def up() -> None:
    """Start what is missing and make the deployments.

    Raises:
        ServiceError: a server cannot be started, or Prefect refuses the deployments.
        BlockError: the block for notifications is not there.
    """
    with services.starting_alone(say):
        services.start_all(say)
        services.prefect("deploy", "--all", say=say)
    be_client()
    automations.ensure()
    reconcile(say)
    say(f"runs:    {page_link()}\nresults: {mlflow_url()}")


def be_client() -> None:
    """Let this process talk to the servers of this checkout, whatever it has imported so far."""
    from prefect.context import refresh_global_settings_context

    os.environ.update(environment())
    refresh_global_settings_context()


def run(recipe: str, overrides: Mapping[str, Any], stage: str | None, force: bool) -> int:
    """Run the pipeline or a stage to its end; returns 0 if all went well, 130 after a Ctrl-C.

    Raises:
        ServiceError: a server cannot be started, or Prefect refuses the deployments.
        BlockError: the block for notifications is not there.
    """
    began, run_id = time.monotonic(), None
    parameters = {"recipe": recipe, "overrides": dict(overrides), "stage": stage, "force": force}
    try:
        up()
        run_id = _submit(stage or "full-pipeline", parameters)
        words = follow(run_id, say)
    except KeyboardInterrupt:
        return _stopped(run_id)
    told = var_folder() / "runs" / f"{run_id}.json"
    failed = failure_of(told, words)
    if failed:
        reconcile(say)
        say(f"ERROR: {failed}\n{AGAIN}")
        return 1
    summary = json.loads(told.read_text())
    say(table_of(summary))
    say(f"whole command: {time.monotonic() - began:.0f} s; the same as JSON: {told}")
    say(f"MLflow:  {summary['mlflow_url']}\nPrefect: {summary['prefect_url']}")
    return 0


def _submit(deployment: str, parameters: dict[str, Any]) -> UUID:
    from prefect.client.orchestration import get_client

    name = f"gill-run-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(f"gill/{deployment}")
        return client.create_flow_run_from_deployment(found.id, parameters=parameters, name=name).id


def _stopped(run_id: UUID | None) -> int:
    """End the run that a Ctrl-C was for; the servers stay, as after any run."""
    if run_id is None:
        say("\nstopped before a run began; `gill down` stops the servers that are up")
        return 130
    say("\nstopping the run")
    try:
        if not cancel(run_id, "stopped by Ctrl-C of gill run"):
            say("its process takes long to end; `gill reconcile` settles it later")
    except KeyboardInterrupt:
        say("left to the worker, which ends it")
    say(f"stopped. {AGAIN} `gill down` stops the servers")
    return 130
