"""``gill run`` and what belongs to it: the local servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.errors import CommandError, as_command_error
from flows.names import RecipeName
from flows.overrides import ConfigError, parsed


def _stages(incomplete: str) -> list[str]:
    from tasks.runner.names import stage_names

    return [name for name in stage_names() if name.startswith(incomplete)]


Recipe = Annotated[
    RecipeName, typer.Option(help="Which models, data and settings: flows/recipes.py.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting, such as mapper.learning_rate=5e-4; may be given often. "
        "`gill config` lists the keys.",
    ),
]


Model = Annotated[
    str | None,
    typer.Option(
        help="Evaluate this model instead of training one: an artifact's folder, such as `gill "
        "import` prints, a var folder or an MLflow run id.",
    ),
]


def instead_of_training(model: str | None) -> dict[str, Any]:
    """Overrides with which a pipeline takes a trained model."""
    if model is None:
        return {}
    path = Path(model)  # a worker runs in another folder
    return {"schedule": "imported", "model": str(path.absolute()) if path.exists() else model}


def run(
    stage: Annotated[
        str | None,
        typer.Argument(
            help="Run this stage alone, on artifacts that are there; without it the pipeline.",
            autocompletion=_stages,
        ),
    ] = None,
    recipe: Recipe = "embedded",
    settings: Settings = None,
    model: Model = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Make the stages that run again although they are there."),
    ] = False,
) -> int:
    """Run the pipeline, or one stage, on the local servers, and follow it to its end."""
    from tasks.runner.names import check_stage

    # What is wrong with the command is said before a server starts, slips of the pen at once.
    with as_command_error(ConfigError, ValueError):
        overrides = parsed(settings or []) | instead_of_training(model)
        if stage is not None:
            check_stage(stage)
        if stage == "joint":
            overrides.setdefault("schedule", "joint")
        from flows.recipes import resolve

        config = resolve(recipe, overrides)
    from data.manifest import DamagedArtifactError

    with as_command_error(ValueError, OSError, DamagedArtifactError):
        from flows.checks import check_run
        from flows.local.environment import private_files

        with private_files():
            check_run(config, stage, force)
    from flows.local import run as local
    from flows.local.automations import BlockError
    from flows.local.services import ServiceError

    with as_command_error(ServiceError, BlockError):
        return local.run(recipe, overrides, stage, force)


def up() -> int:
    """Start the local Prefect and MLflow servers and a worker, and make the deployments."""
    from flows.local import run as local
    from flows.local.automations import BlockError
    from flows.local.services import ServiceError

    with as_command_error(ServiceError, BlockError):
        try:
            local.up()
        except KeyboardInterrupt:
            print("\nstopped; `gill up` goes on from here, `gill down` stops what is up")
            return 130
    return 0


def down() -> None:
    """Stop what `gill up` or `gill run` started."""
    from flows.local import services

    services.stop_all(print)


def reconcile() -> None:
    """Settle runs that a killed process left behind as running."""
    from flows.local import run as local
    from flows.local import services
    from flows.local.reconcile import reconcile as settle

    if not services.runs_here(services.prefect_server()):
        raise CommandError("no Prefect server of this checkout runs; start it with `gill up`")
    local.be_client()
    settle(print)
