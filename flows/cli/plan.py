"""``gill plan``: what a run would reuse, go on with and make, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.errors import as_command_error
from flows.cli.runs import Model, Recipe, Settings, instead_of_training
from flows.overrides import ConfigError, parsed

if TYPE_CHECKING:
    from tasks.runner.planning import StagePlan

WORK = 3  # exit status where something is to be made


def plan(
    recipe: Recipe = "embedded",
    settings: Settings = None,
    model: Model = None,
    force: Annotated[
        bool, typer.Option("--force", help="As if finished stages were to be made again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Say what a run would reuse, resume and make, and why; status 3 if there is work, else 0.

    Seconds and bytes are those of the last artifact of a stage that is most like the planned one,
    in this store, for as many shards as are new; of stages that were never made, those of the
    recipe's last rehearsal.
    """
    with as_command_error(ConfigError):
        overrides = parsed(settings or []) | instead_of_training(model)
        from flows.recipes import resolve

        config = resolve(recipe, overrides)
    from data.manifest import DamagedArtifactError
    from data.sources.base import SourceError
    from flows.local.environment import private_files
    from flows.pipeline import dag
    from flows.rehearsal.record import with_rehearsed
    from tasks.inference.sources import LoadError
    from tasks.parts.checks import host_memory
    from tasks.runner.dag import plan as planned_stages
    from tasks.runner.planning import check_memory_to_hold, check_room_to_make, explain

    problems = (SourceError, LoadError, DamagedArtifactError, OSError)
    with as_command_error(*problems), private_files():
        found = explain(planned_stages(dag(config.schedule), config), force)
    found = with_rehearsed(found, recipe, config)
    shown = json.dumps([asdict(stage) for stage in found], indent=1)
    print(shown if as_json else _table(found, recipe))
    with as_command_error(OSError):
        check_room_to_make(found)
        check_memory_to_hold(found, host_memory())
    return WORK if any(stage.status != "reuse" for stage in found) else 0


def _table(found: list[StagePlan], recipe: str) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "", "seconds", "MB", "host GB", "GPU GB", "why")
    for stage in found:
        why = "\n".join(stage.reasons)
        if stage.unfinished:
            why = f"goes on from {stage.unfinished}\n{why}"
        if stage.shards:
            why = f"{stage.shards}\n{why}"
        known = "" if stage.status == "reuse" else "?"
        table.add_row(
            stage.stage,
            stage.status,
            _figure(stage.seconds, 1, known, stage.rehearsed),
            _figure(stage.bytes, 1e6, "?", stage.rehearsed),
            _figure(stage.host, 1e9, known, stage.rehearsed),
            _figure(stage.gpu, 1e9, "", stage.rehearsed),
            why,
        )
    console = Console(width=132)
    with console.capture() as captured:
        console.print(table)
    return captured.get() + "\n".join(_summed(found, recipe))


def _summed(found: list[StagePlan], recipe: str) -> Iterator[str]:
    """The time in all, and how to know it where it is not known."""
    from flows.rehearsal.report import duration
    from flows.rehearsal.sizes import REHEARSALS

    todo = [stage for stage in found if stage.status != "reuse"]
    if not todo:
        yield "nothing is to be made"
        return
    unknown = [stage.stage for stage in todo if stage.seconds is None]
    seconds = sum(stage.seconds or 0.0 for stage in todo)
    total = f"to be made: about {duration(seconds)} as far as it is known"
    yield total + (f", and {', '.join(unknown)}, never made here" if unknown else "")
    if any(stage.rehearsed for stage in todo):
        yield "~: of the last rehearsal on this machine (`gill rehearse`)"
    elif unknown and recipe in REHEARSALS:
        yield f"`gill rehearse --recipe {recipe}` measures what it will take here"


def _figure(value: float | None, unit: float, unknown: str, rehearsed: bool) -> str:
    if value is None:
        return unknown
    return f"{'~' if rehearsed else ''}{value / unit:,.1f}"
