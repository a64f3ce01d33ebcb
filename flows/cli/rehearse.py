"""``gill rehearse``: every stage of a recipe at real widths, and what the whole run will take."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from typing import Annotated

import typer

from flows.cli.errors import as_command_error
from flows.cli.runs import Recipe, Settings
from flows.overrides import ConfigError, parsed


def rehearse(
    recipe: Recipe = "opt-6.7b",
    steps: Annotated[
        int | None, typer.Option("--steps", min=2, help="Steps of each training.")
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option("--layers", min=1, help="Of the language model and the vision tower."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Cut nothing of the parts: for a GPU that holds them.")
    ] = False,
    settings: Settings = None,
    force: Annotated[
        bool, typer.Option("--force", help="Measure again what was measured already.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove all that a rehearsal wrote, and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Run every stage of a recipe on stand-ins of its parts, and say what the whole run will take.

    Stand-ins have the published widths and random weights, and the data are made too: nothing is
    downloaded. All lies in var/rehearsal, apart from real runs, and is used again by the next one.
    """
    say = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    with as_command_error(ConfigError):
        overrides = parsed(settings or [])
        from flows.recipes import resolve
        from flows.rehearsal.sizes import changed, rehearsal_of

        rehearsal = rehearsal_of(recipe)
        whole_config = resolve(recipe, overrides)
        sampler_steps = whole_config.parts.generator.steps
        rehearsal = changed(rehearsal, steps, layers, full, sampler_steps)
    from flows.rehearsal import record, report
    from flows.rehearsal.estimate import estimates
    from flows.rehearsal.run import folder_of
    from flows.rehearsal.run import rehearse as run
    from flows.rehearsal.work import Scale

    if remove:
        shutil.rmtree(folder_of(recipe), ignore_errors=True)
        return
    from flows.local.environment import private_files
    from flows.local.services import ServiceError

    with as_command_error(ConfigError, ServiceError, ValueError, OSError), private_files():
        measured, scale = run(rehearsal, overrides, force, say)
        record.write(rehearsal, measured, scale, overrides)
    estimated = estimates(
        measured, scale, Scale(whole_config, rehearsal.published, rehearsal.whole)
    )
    shown = (rehearsal, measured, estimated, record.machine())
    print(json.dumps(report.described(*shown), indent=1) if as_json else report.table(*shown))
