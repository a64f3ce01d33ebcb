"""``make run`` and ``make stop``: everything on this machine, watched, and summed up in a table.

python -m flows.local.main run [--recipe embedded] [--overrides JSON]
python -m flows.local.main up | down | status | reconcile
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.local import services
from flows.local.services import ServiceError, environment
from tasks.paths import ROOT, var_folder

# The metrics that a glance should show, by stage.
HEADLINES = {
    "download": ("train_pairs", "test_pairs", "dropped"),
    "clip_features": ("rows", "rows_per_second"),
    "text_targets": ("rows", "rows_per_second"),
    "adapters": ("validation_l_c", "validation_t2i_r1", "validation_t2i_r10"),
    "mapper": ("validation_l_g", "linear_validation_l_g"),
    "joint": ("validation_l_c", "validation_l_g", "validation_t2i_r1", "validation_t2i_r10"),
    "index": ("images",),
    "decision": ("macro_f1", "majority_macro_f1"),
    "evaluate": ("retrieval_t2i_r1", "retrieval_t2i_r10", "caption_cider", "decision_macro_f1"),
}


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def run(recipe: str, overrides: dict[str, Any]) -> int:
    """Start what is missing, deploy, run the full pipeline and print what came out."""
    began = time.monotonic()
    services.start_all(say)
    os.environ.update(environment())
    reconcile()
    _prefect("deploy", "--all", timeout=180)
    say(f"deployed; {services.prefect_url()} shows the run, {services.mlflow_url()} the results")
    name = f"make-run-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    command = [sys.executable, "-m", "prefect", "deployment", "run", "gill/full-pipeline"]
    command += ["--watch", "--flow-run-name", name]
    command += ["--params", json.dumps({"recipe": recipe, "overrides": overrides})]
    log, told = var_folder() / "logs" / "watch.log", var_folder() / "last_run.json"
    told.unlink(missing_ok=True)
    with log.open("wb") as output:
        watch = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        lost = _follow(watch, name)
    if lost:
        watch.kill()
    failed = lost or _failure(told, watch.returncode, log)
    if failed:
        reconcile()
        say(f"ERROR: {failed}\nRun `make run` again: finished work is kept.")
        return 1
    summary = json.loads(told.read_text())
    say(_table(summary))
    say(f"whole command: {time.monotonic() - began:.0f} s; the same as JSON: var/last_run.json")
    say(f"MLflow:  {summary['mlflow_url']}\nPrefect: {summary['prefect_url']}")
    return 0


def _failure(summary: Path, code: int, log: Path) -> str | None:
    """Why a run that has ended did not succeed, from its summary and its watcher's code and log."""
    watched = log.read_text(errors="replace")[-2000:]
    if not summary.exists():
        return f"the process of the run was killed (out of memory?) or never began:\n{watched}"
    told = json.loads(summary.read_text())
    if code == 0 and told["state"] == "completed":
        return None
    return f"the run failed: {told['error'] or watched}"


def _prefect(*arguments: str, timeout: float) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ServiceError(f"prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def _follow(watch: subprocess.Popen[bytes], name: str) -> str:
    """Print the flow's log until the watching command ends; return what was lost, if anything."""
    stop = threading.Event()
    printer = threading.Thread(target=_print_logs, args=(name, stop), daemon=True)
    printer.start()
    lost = ""
    while watch.poll() is None and not lost:
        time.sleep(1)
        if services.process_of("worker") is None:
            lost = "the worker died"
        elif not services.port_is_taken(services.prefect_port()):
            lost = "the Prefect server stopped answering"
    stop.set()
    printer.join(timeout=10)
    return lost


def _print_logs(name: str, stop: threading.Event) -> None:
    for line in _log_lines(name, stop):
        say(line)


def _log_lines(name: str, stop: threading.Event) -> Iterator[str]:
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterName,
        LogFilter,
        LogFilterFlowRunId,
    )

    with get_client(sync_client=True) as client:
        run_id, shown, finishing = None, 0, False
        names: dict[Any, str] = {}
        while not finishing:
            finishing = stop.wait(2.0)
            try:
                if run_id is None:
                    match = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
                    found = client.read_flow_runs(flow_run_filter=match)
                    run_id = found[0].id if found else None
                    continue
                wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
                while lines := client.read_logs(wanted, limit=200, offset=shown):
                    shown += len(lines)
                    for line in lines:
                        if line.task_run_id and line.task_run_id not in names:
                            names[line.task_run_id] = client.read_task_run(line.task_run_id).name
                        stage = names.get(line.task_run_id, "flow")
                        yield f"{line.timestamp:%H:%M:%S} {stage:>13} | {line.message}"
            except HTTPError as error:
                yield f"(the log cannot be read just now: {error})"


def _table(summary: dict[str, Any]) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "", "seconds", "headline metrics")
    for name, stage in summary["stages"].items():
        shown = [
            f"{key} {stage['metrics'][key]:.3g}"
            for key in HEADLINES.get(name, ())
            if key in stage["metrics"]
        ]
        table.add_row(name, stage["status"], f"{stage['seconds']:.1f}", ", ".join(shown))
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def reconcile() -> None:
    """Settle what killed processes left behind as running, in Prefect and in MLflow."""
    import psutil

    from tasks.tracking import mlflow_runs

    alive = set()
    for process in psutil.process_iter():
        try:
            alive.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
        except (psutil.AccessDenied, psutil.NoSuchProcess, OSError):
            continue
    for run_id in _crash_lost_flow_runs(alive):
        say(f"reconcile: the flow run {run_id} has no process any more; marked as crashed")
    for name in mlflow_runs.end_lost_runs():
        say(f"reconcile: the MLflow run {name} lost its process; marked KILLED")


def _crash_lost_flow_runs(alive: set[str]) -> list[str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    states = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    lost = []
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["gill"])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))
            ),
        ):
            if str(run.id) not in alive:
                message = "its process is gone"
                client.set_flow_run_state(run.id, Crashed(message=message), force=True)
                lost.append(str(run.id))
    return lost


def status() -> None:
    """Say what is up."""
    for service in services.services():
        process = services.process_of(service.name)
        answers = service.health is None or services.healthy(service.health)
        state = f"pid {process.pid}" if process else "not started by this project"
        say(f"{service.name}: {state}{'' if answers else ', does not answer'}")


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.local.main", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="start, deploy and run the full pipeline")
    running.add_argument("--recipe", default="embedded")
    running.add_argument("--overrides", type=json.loads, default={})
    commands.add_parser("up", help="start the servers and the worker")
    commands.add_parser("down", help="stop what was started")
    commands.add_parser("status", help="say what is up")
    commands.add_parser("reconcile", help="settle runs whose process is gone")
    given = parser.parse_args()
    try:
        if given.command == "run":
            return run(given.recipe, given.overrides)
        if given.command == "up":
            services.start_all(say)
            os.environ.update(environment())
            _prefect("deploy", "--all", timeout=180)
        elif given.command == "down":
            services.stop_all(say)
        elif given.command == "status":
            status()
        else:
            os.environ.update(environment())
            reconcile()
    except ServiceError as error:
        say(f"ERROR: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
