"""Errors that the user can mend, as one kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CommandError(Exception):
    """What is wrong with a command or with what it names, in words for its user."""


@contextmanager
def as_command_error(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of some kinds into a ``CommandError`` with the same message."""
    try:
        yield
    except kinds as error:
        raise CommandError(str(error)) from error
