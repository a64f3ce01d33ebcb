"""Follows a flow run to its end: prints its log, and notices when a server is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.local import ports, processes
from tasks.paths import prefect_port

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

Say = Callable[[str], None]
POLL, CANCEL_WITHIN = 2.0, 90.0


def follow(run_id: UUID, say: Say) -> str:
    """Print the log of a flow run until it ends; returns its last words, or what was lost."""
    from httpx import HTTPError
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        log = _Log(client, run_id)
        ended = False
        while True:
            try:
                state = client.read_flow_run(run_id).state
                for line in log.lines():
                    say(line)
                if ended:
                    return str(state.message if state is not None else "")
                ended = state is not None and state.is_final()
            except HTTPError as error:
                say(f"(the log cannot be read just now: {error})")
            if lost := _lost():
                return lost
            time.sleep(POLL)


def _lost() -> str:
    if processes.process_of("worker") is None:
        return "the worker died"
    return "" if ports.is_taken(prefect_port()) else "the Prefect server stopped answering"


def cancel(run_id: UUID, reason: str) -> bool:
    """Cancel a flow run and wait until its process is gone; returns whether that was seen."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, Cancelling(message=reason))
        until = time.monotonic() + CANCEL_WITHIN
        while time.monotonic() < until:
            state = client.read_flow_run(run_id).state
            if state is not None and state.is_final():
                return True
            time.sleep(POLL)
    return False


class _Log:
    """The lines of a flow run that were not told yet."""

    def __init__(self, client: SyncPrefectClient, run_id: UUID) -> None:
        self._client, self._run_id, self._shown = client, run_id, 0
        self._names: dict[Any, str] = {}

    def lines(self) -> Iterator[str]:
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self._run_id]))
        while found := self._client.read_logs(wanted, limit=200, offset=self._shown):
            self._shown += len(found)
            for line in found:
                task = line.task_run_id
                if task and task not in self._names:
                    self._names[task] = self._client.read_task_run(task).name
                stage = self._names.get(task, "flow")
                yield f"{line.timestamp:%H:%M:%S} {stage:>13} | {line.message}"
