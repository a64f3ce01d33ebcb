"""Settles what killed processes left behind as running, in Prefect and in MLflow.

A run that may be alive is never touched. Each says in a label which process it is, by host, number
and start; on another host nothing can be known, so such a run stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

FLOWS = ["gill", "ablation"]
# A run has no label from its submission until its process has imported everything.
UNMARKED = timedelta(minutes=15)
LAG = timedelta(minutes=2)  # what Prefect hears of a task run comes later than its flow run's end


def reconcile(say: Callable[[str], None]) -> None:
    """Settle what killed processes left behind as running, in Prefect and in MLflow."""
    from tasks.tracking import mlflow_runs

    flows, stages = settle_prefect(_alive())
    for run_id in flows:
        say(f"reconcile: the flow run {run_id} has no process any more; marked as crashed")
    if stages:
        say(f"reconcile: {stages} of their task runs marked as crashed")
    for name in mlflow_runs.end_lost_runs():
        say(f"reconcile: the MLflow run {name} lost its process; marked KILLED")


def _alive() -> set[str]:
    """Ids of the flow runs that a worker of this host started and whose process lives."""
    import psutil

    alive = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            alive.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
    return alive


def settle_prefect(alive: Collection[str]) -> tuple[list[str], int]:
    """Mark flow runs whose process is gone as crashed, and what task runs they left.

    Args:
        alive: ids of runs whose process lives, however they are marked.

    Returns:
        The flow runs' ids, and the number of task runs.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        going = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
        lost = [run for run in _flow_runs(client, going) if _is_lost(run, alive)]
        for run in lost:
            crashed: State[Any] = Crashed(message="its process is gone")
            client.set_flow_run_state(run.id, crashed, force=True)
        ended = [StateType.CRASHED, StateType.CANCELLED, StateType.FAILED]
        settled = [run.id for run in lost] + [
            run.id for run in _flow_runs(client, ended) if run.end_time and _age(run.end_time) > LAG
        ]
        tasks = _settle_task_runs(client, settled)
    return [str(run.id) for run in lost], tasks


def _flow_runs(client: SyncPrefectClient, states: list[Any]) -> list[FlowRun]:
    from prefect.client.schemas.filters import (
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.sorting import FlowRunSort

    return client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=FLOWS)),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))
        ),
        sort=FlowRunSort.START_TIME_DESC,
        limit=100,
    )


def _is_lost(run: FlowRun, alive: Collection[str]) -> bool:
    """Whether the process of a run that is said to go on is known to be gone."""
    from tasks.tracking import mlflow_runs

    if str(run.id) in alive:
        return False
    mark = run.labels.get(mlflow_runs.PROCESS_LABEL)
    if mark is not None:
        return mlflow_runs.is_lost(str(mark))
    since = run.state.timestamp if run.state is not None else run.created
    return since is not None and _age(since) > UNMARKED


def _age(moment: datetime) -> timedelta:
    return datetime.now(UTC) - moment


def _settle_task_runs(client: SyncPrefectClient, flow_runs: list[Any]) -> int:
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        TaskRunFilter,
        TaskRunFilterState,
        TaskRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    if not flow_runs:
        return 0
    going = TaskRunFilterStateType(any_=[StateType.RUNNING])
    left = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=flow_runs)),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=going)),
    )
    for task in left:
        crashed: State[Any] = Crashed(message="the process of its flow run is gone")
        client.set_task_run_state(task.id, crashed, force=True)
    return len(left)
