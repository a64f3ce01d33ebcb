"""The command ``gill`` put together, and how its errors look."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import typer

from flows.cli import answers, config, plan, rehearse, released, runs, status, store
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
app.command("status")(status.status)
app.command("reconcile")(runs.reconcile)
app.command("config")(config.config)
app.command("plan")(plan.plan)
app.command("rehearse")(rehearse.rehearse)
app.add_typer(store.store)
app.command("generate", cls=answers.InOrder)(answers.generate)
app.command("index")(answers.index)
app.command("export")(released.export)
app.command("import")(released.import_)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; errors that the user can mend are a line on stderr and status 2."""
    try:
        for argument in sys.argv[1:] if arguments is None else arguments:
            _check_text(argument)
        status: Any = app(arguments, prog_name="gill", standalone_mode=False)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except typer.Abort:
        return 130
    except BrokenPipeError:  # whoever read the output has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
            raise
        return _refused(error)  # a usage error of the parser
    return int(status or 0)


def _check_text(argument: str) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        shown = argument.encode(errors="surrogateescape")
        raise CommandError(
            f"the argument {shown!r} is not valid UTF-8; write it, or rename the file, in UTF-8"
        ) from error


def _refused(error: Any) -> int:
    """Say in a line what the parser refuses, with the nearest of the choices."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    message = " ".join(str(error.format_message()).split()).replace("Value error, ", "")
    if found := re.search(r"'([^']*)' is not one of (.*)", message):
        choices = re.findall(r"'([^']*)'", found[2])
        if near := get_close_matches(found[1], choices, n=1, cutoff=0.4):
            message += f" Did you mean {near[0]!r}?"
    path = getattr(getattr(error, "ctx", None), "command_path", "gill")
    print(f"error: {message} (`{path} --help` says more)", file=sys.stderr)
    return 2
