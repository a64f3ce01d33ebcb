"""The command ``gill`` put together, and how its errors look."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer

from flows.cli import answers, config, plan, runs, store
from flows.cli.errors import CommandError

app = typer.Typer(
    name="gill",
    help="GILL: images and text in, text and images out; and the pipeline that trains it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(runs.run)
app.command("up")(runs.up)
app.command("down")(runs.down)
app.command("status")(runs.status)
app.command("reconcile")(runs.reconcile)
app.command("config")(config.config)
app.command("plan")(plan.plan)
app.add_typer(store.store)
app.command("generate", cls=answers.InOrder)(answers.generate)
app.command("index")(answers.index)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; errors that the user can mend are a message on stderr and status 2."""
    try:
        status: Any = app(arguments, prog_name="gill", standalone_mode=False)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except typer.Abort:
        return 130
    except Exception as error:
        if not hasattr(error, "show") or not hasattr(error, "exit_code"):
            raise
        error.show()  # a usage error of the parser
        return int(error.exit_code)
    return int(status or 0)
