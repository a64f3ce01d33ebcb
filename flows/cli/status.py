"""``gill status``: the servers, and the run at hand."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from tasks.tracking.memory import GPU

if TYPE_CHECKING:
    from tasks.runner.status import RunStatus, StageStatus

_LOSS = re.compile(r"(?:.*_)?(?:loss|l_[a-z])").fullmatch
_MOST = 6  # losses that are shown, the newest first; --json has all figures


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say which servers are up, and how far the run at hand is."""
    from flows.local import services
    from flows.local.environment import page_link
    from tasks.runner.status import runs_at_hand

    servers: list[str] = []
    services.status(servers.append)
    page = f"runs:    {page_link()}" if services.runs_here(services.prefect_server()) else ""
    runs = runs_at_hand()
    if as_json:
        named = dict(line.split(": ", 1) for line in servers)
        print(json.dumps({"servers": named, "runs": [asdict(run) for run in runs]}, indent=1))
        return
    for line in [*servers, page]:
        if line:
            print(line)
    if not runs:
        print("no run yet")
    for run in runs:
        print("\n".join(_lines(run)))


def _lines(run: RunStatus) -> list[str]:
    what = f"{run.recipe}, {run.stage or 'full pipeline'} ({run.flow_run_id})"
    began = f", began {run.began[:19]} UTC" if run.began else ""
    memory = "" if run.memory_bytes is None else f", {run.memory_bytes / 1e9:.1f} GB resident"
    word = "the run at hand" if run.state == "running" else f"the last run {run.state}"
    error = [f"  {run.error.splitlines()[0]}"] if run.error else []
    stages = [_line(stage) for stage in run.stages]
    return [f"{word}: {what}{began}{memory}", *error, *stages]


def _line(stage: StageStatus) -> str:
    line, said = f"  {stage.stage:15} {stage.state}", stage.progress
    if not said:
        return line
    share = 100 * said["done"] / max(1, said["total"])
    line += f": {said['done']:,}/{said['total']:,} {said['unit']} ({share:.0f}%)"
    if stage.state == "works":
        left = said["seconds_left"]
        time = "measuring" if left is None else f"{timedelta(seconds=round(left))} left"
        line += f", {said['rate']:.1f}/s, {time}"
    if held := said.get(GPU):
        line += f", up to {held / 1e9:.1f} GB of a GPU"
    losses = [f"{name} {value:.4g}" for name, value in said["metrics"].items() if _LOSS(name)]
    return line + (f"; {', '.join(losses[:_MOST])}" if losses else "")
