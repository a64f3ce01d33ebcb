"""``gill store``: what finished work is kept, what can go, and whether it is whole."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.errors import CommandError, as_command_error

if TYPE_CHECKING:
    from tasks.runner.housekeeping import Stored

store = typer.Typer(
    name="store", help="Finished work: list, size, pin, prune, verify.", no_args_is_help=True
)


@store.command("list")
def list_() -> None:
    """List every artifact: when it was made, how large it is, and why it would be kept."""
    from rich.console import Console
    from rich.table import Table

    from tasks.runner.housekeeping import needed, stored

    found = stored()
    reasons = needed(found)
    table = Table("artifact", "made (UTC)", "MB", "kept because")
    for one in found:
        why = one.problem or reasons.get(one.name, "")
        table.add_row(one.name, one.made[:16].replace("T", " "), f"{one.bytes / 1e6:,.1f}", why)
    console = Console(width=140)
    with console.capture() as captured:
        console.print(table)
    print(captured.get().rstrip())


@store.command()
def size() -> None:
    """Sum up the store by stage, and what a prune would free."""
    from tasks.runner.housekeeping import bytes_of, freed_by, needed, stored

    found = stored()
    reasons = needed(found)
    by_stage: defaultdict[str, list[Stored]] = defaultdict(list)
    for one in found:
        by_stage[one.stage].append(one)
    for stage, ones in by_stage.items():
        print(f"{stage:15} {bytes_of(ones) / 1e6:12,.1f} MB")
    begun = needed(found, unfinished=False)
    free = freed_by(one for one in found if one.name not in reasons)
    more = freed_by(one for one in found if one.name not in begun) - free
    print(f"{'all':15} {bytes_of(found) / 1e6:12,.1f} MB, of which `gill store prune` frees "
          f"{free / 1e6:,.1f}, and `--unfinished` {more / 1e6:,.1f} more")  # fmt: skip


@store.command()
def pin(
    artifact: Annotated[str, typer.Argument(help="stage/fingerprint, or its beginning.")],
    undo: Annotated[bool, typer.Option("--undo", help="Keep it no longer.")] = False,
) -> None:
    """Keep an artifact, and all that it was made of, from being pruned."""
    from tasks.runner import housekeeping

    with as_command_error(housekeeping.StoreError):
        name = housekeeping.pin(artifact, keep=not undo)
    print(f"{name} is {'no longer pinned' if undo else 'pinned'}")


@store.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    unfinished: Annotated[
        bool,
        typer.Option(
            "--unfinished",
            help="Also what killed and failed runs have left, which a run would go on with.",
        ),
    ] = False,
) -> None:
    """Remove what neither the last run, nor a pin, nor unfinished work, nor a run needs."""
    from tasks.runner.housekeeping import StoreError, freed_by, needed, remove, silent, stored

    found = stored()
    reasons = needed(found, unfinished=not unfinished)
    if mute := silent(found, reasons):
        raise CommandError(
            f"{', '.join(one.name for one in mute)} must stay and do not say what they are made "
            "of, so that nothing was removed; run them to their end, or remove what is unfinished "
            "of them with --unfinished"
        )
    spare = [one for one in found if one.name not in reasons]
    if not spare:
        print("there is nothing to remove")
        return
    for one in spare:
        print(f"{one.name}{' (unfinished)' if one.unfinished else ''}: {one.bytes / 1e6:,.1f} MB")
    total = freed_by(spare)  # what others have too stays on the disk
    if not yes:
        typer.confirm(f"Remove these {len(spare)} and free {total / 1e6:,.1f} MB?", abort=True)
    with as_command_error(StoreError):
        for one in spare:
            remove(one)
    print(f"removed {len(spare)}, {total / 1e6:,.1f} MB")


@store.command()
def verify(
    artifact: Annotated[str, typer.Argument(help="Only those whose name begins so.")] = "",
) -> None:
    """Read every file of every artifact and compare it with the checksum of its manifest."""
    from tasks.runner.housekeeping import damage, stored

    found = [one for one in stored() if not one.unfinished and one.name.startswith(artifact)]
    if not found:
        raise CommandError(f"no finished artifact's name begins with {artifact!r}")
    damaged = 0
    for one in found:
        problems = damage(one)
        damaged += bool(problems)
        said = "; ".join(f"{name}: {what}" for name, what in problems.items()) or "whole"
        print(f"{one.name}: {said}")
    if damaged:
        raise CommandError(
            f"{damaged} of {len(found)} artifacts are damaged; `gill run` makes again what is "
            "damaged of those that it needs, and `gill store prune` removes the others"
        )
