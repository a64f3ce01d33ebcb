"""``gill status``: the servers, and the run at hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tasks.runner.status import RunStatus, StageStatus

_METRICS = 6  # of a stage that are shown; --json has all


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
    return [f"{word}: {what}{began}{memory}", *(_line(stage) for stage in run.stages)]


def _line(stage: StageStatus) -> str:
    said, found = stage.progress, [f"  {stage.stage:15} {stage.state}"]
    if said:
        left = said["seconds_left"]
        found.append(
            f"{said['done']:,}/{said['total']:,} {said['unit']} "
            f"({100 * said['done'] / max(1, said['total']):.0f}%), {said['rate']:.1f}/s, "
            + ("measuring" if left is None else f"{left:,.0f} s left")
        )
        shown = list(said["metrics"].items())[:_METRICS]
        found += [", ".join(f"{name} {value:.4g}" for name, value in shown)] if shown else []
    return ": ".join(found[:2]) + ("" if len(found) < 3 else f"; {found[2]}")
