"""Settles what killed processes left behind as running, in Prefect and in MLflow."""

from __future__ import annotations

from collections.abc import Callable

IN_PROCESS = {"flows.pipeline", "flows.ablation"}  # modules that run a flow without a worker


def reconcile(say: Callable[[str], None]) -> None:
    """Settle what killed processes left behind as running, in Prefect and in MLflow."""
    import psutil

    from tasks.tracking import mlflow_runs

    alive, in_process = set(), False
    for process in psutil.process_iter():
        try:
            alive.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
            in_process = in_process or bool(IN_PROCESS & set(process.cmdline()))
        except (psutil.AccessDenied, psutil.NoSuchProcess, OSError):
            continue
    for run_id in crash_lost_flow_runs(alive, in_process):
        say(f"reconcile: the flow run {run_id} has no process any more; marked as crashed")
    for name in mlflow_runs.end_lost_runs():
        say(f"reconcile: the MLflow run {name} lost its process; marked KILLED")


def crash_lost_flow_runs(alive: set[str], in_process: bool) -> list[str]:
    """Mark flow runs as crashed whose process is gone; returns their ids.

    Args:
        alive: ids of the runs whose process lives, as its environment names them.
        in_process: whether a process runs flows by itself. Nothing tells which run is its own, so
            runs of no deployment are then left alone.
    """
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
            kept = str(run.id) in alive or (run.deployment_id is None and in_process)
            if not kept:
                message = "its process is gone"
                client.set_flow_run_state(run.id, Crashed(message=message), force=True)
                lost.append(str(run.id))
    return lost
