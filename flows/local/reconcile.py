"""Settles what killed processes left behind as running, in Prefect and in MLflow."""

from __future__ import annotations

from collections.abc import Callable


def reconcile(say: Callable[[str], None]) -> None:
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
