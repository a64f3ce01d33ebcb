"""Follows a flow run: prints its log until it ends, and notices when a server is lost."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from flows.local import services
from tasks.paths import prefect_port


def follow(watch: subprocess.Popen[bytes], name: str, say: Callable[[str], None]) -> str:
    """Print the flow's log until the watching command ends; return what was lost, if anything."""
    stop = threading.Event()
    printer = threading.Thread(target=_print_logs, args=(name, stop, say), daemon=True)
    printer.start()
    lost = ""
    while watch.poll() is None and not lost:
        time.sleep(1)
        if services.process_of("worker") is None:
            lost = "the worker died"
        elif not services.port_is_taken(prefect_port()):
            lost = "the Prefect server stopped answering"
    stop.set()
    printer.join(timeout=10)
    return lost


def _print_logs(name: str, stop: threading.Event, say: Callable[[str], None]) -> None:
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
