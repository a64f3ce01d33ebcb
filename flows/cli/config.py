"""``gill config``: every setting with its value, its meaning and where its default comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.errors import CommandError, as_command_error
from flows.cli.runs import Recipe, Settings
from flows.overrides import ConfigError, parsed


def config(
    recipe: Recipe = "embedded",
    settings: Settings = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only settings that differ from their defaults.")
    ] = False,
    search: Annotated[
        str, typer.Option(metavar="WORD", help="Only settings with this word in key or meaning.")
    ] = "",
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/reference/configuration.md instead.")
    ] = False,
) -> None:
    """Print the settings of a recipe: key, value, type, default, unit and meaning."""
    from flows.recipes import resolve
    from flows.settings_list import as_markdown, as_text, lines_of

    if markdown:
        print(as_markdown(), end="")
        return
    with as_command_error(ConfigError):
        whole = resolve(recipe, parsed(settings or []))
    lines = [
        line for line in lines_of(whole) if line.matches(search) and (line.changed or not changed)
    ]
    if not lines:
        raise CommandError(f"no setting has {search!r} in its key or its meaning")
    print(as_text(lines))
