"""``gill export`` and ``gill import``: trained models in the layout of the released checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.errors import as_command_error
from flows.cli.runs import Settings
from flows.names import RecipeName
from flows.overrides import ConfigError, parsed


def export(
    folder: Annotated[Path, typer.Argument(help="To be made.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="An MLflow run id, an artifact's folder or a var folder; the last run without it.",
        ),
    ] = None,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Also a model that only `gill import` can read."),
    ] = False,
) -> None:
    """Write a trained model in the layout of the released checkpoints (kohjingyu/gill)."""
    from data.manifest import DamagedArtifactError
    from gill.released_args import ReleasedError
    from tasks.inference import released
    from tasks.inference.sources import LoadError

    with as_command_error(ReleasedError, LoadError, DamagedArtifactError, OSError):
        reasons = released.export(model, folder, anyway)
    for reason in reasons:
        print(f"not for the released code: {reason}")
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    print("left out: cc3m*.npy, the index, which is a pickle that runs code when read")


def import_(
    folder: Annotated[Path, typer.Argument(help="With model_args.json and its tensors.")],
    recipe: Annotated[
        RecipeName | None,
        typer.Option(help="Whose frozen parts it is used with, if not those that it names."),
    ] = None,
    settings: Settings = None,
) -> None:
    """Put a released checkpoint into the store, checked and pinned."""
    from gill.released_args import ReleasedError
    from tasks.inference.released import import_released
    from tasks.runner.store import name_of

    with as_command_error(ConfigError, ReleasedError, OSError):
        parts = None
        if recipe is not None:
            from flows.recipes import resolve

            parts = resolve(recipe, parsed(settings or [])).parts
        made = import_released(folder, parts)
    for artifact in made:
        print(name_of(artifact))
    print(f"use it with: gill generate --model {made[-1].path} ...")
    print(f"evaluate it with: gill run --recipe {recipe or 'opt-6.7b'} --model {made[-1].path}")
