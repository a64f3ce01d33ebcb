"""``gill plan``: what a run would reuse, go on with and make, and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.errors import CommandError, as_command_error
from flows.cli.runs import Recipe, Settings
from flows.overrides import ConfigError, parsed

if TYPE_CHECKING:
    from tasks.runner.planning import StagePlan

WORK = 3  # exit status where something is to be made


def plan(
    recipe: Recipe = "embedded",
    settings: Settings = None,
    force: Annotated[
        bool, typer.Option("--force", help="As if finished stages were to be made again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Say what a run would reuse, resume and make, and why; status 3 if there is work, else 0.

    Seconds and bytes are those of the last artifact of a stage that is most like the planned one,
    in this store.
    """
    with as_command_error(ConfigError):
        overrides = parsed(settings or [])
        from flows.recipes import resolve

        config = resolve(recipe, overrides)
    from data.sources.base import SourceError
    from flows.local.environment import private_files
    from flows.pipeline import dag
    from tasks.runner.dag import plan as planned_stages
    from tasks.runner.planning import explain, room_missing

    with as_command_error(SourceError, OSError), private_files():
        found = explain(planned_stages(dag(config.schedule), config), force)
    print(json.dumps([asdict(stage) for stage in found], indent=1) if as_json else _table(found))
    if missing := room_missing(found):
        raise CommandError(
            f"the disk of the store lacks {missing / 1e9:.1f} GB for what is to be made, as far as "
            "earlier artifacts tell; make room, or set GILL_VAR to a larger disk"
        )
    return WORK if any(stage.status != "reuse" for stage in found) else 0


def _table(found: list[StagePlan]) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "", "seconds", "MB", "why")
    for stage in found:
        why = "\n".join(stage.reasons)
        if stage.unfinished:
            why = f"goes on from {stage.unfinished}\n{why}"
        table.add_row(
            stage.stage,
            stage.status,
            "" if stage.status == "reuse" else _figure(stage.seconds, 1),
            _figure(stage.bytes, 1e6),
            why,
        )
    known = [s.seconds for s in found if s.status != "reuse" and s.seconds is not None]
    unknown = [s.stage for s in found if s.status != "reuse" and s.seconds is None]
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table)
    total = f"to be made: about {sum(known):.0f} s as far as it is known"
    total += f", and {', '.join(unknown)}, never made here" if unknown else ""
    done = all(stage.status == "reuse" for stage in found)
    return captured.get() + ("nothing is to be made" if done else total)


def _figure(value: float | None, unit: float) -> str:
    return "?" if value is None else f"{value / unit:,.1f}"
