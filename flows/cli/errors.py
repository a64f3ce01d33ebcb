"""Errors that the user can mend, as one kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CommandError(Exception):
    """What is wrong with a command or with what it names, in words for its user."""


@contextmanager
def as_command_error(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of some kinds into a ``CommandError`` that says the same.

    Wrong input is told in one line; what servers said when they failed keeps its lines.
    """
    try:
        yield
    except kinds as error:
        message = str(error) if isinstance(error, RuntimeError) else in_a_line(error)
        raise CommandError(message) from error


def in_a_line(error: Exception) -> str:
    """What an error says, without line breaks; what settings it refuses, by name."""
    from pydantic import ValidationError

    from gill.settings import said

    message = said(error) if isinstance(error, ValidationError) else str(error)
    return " ".join(message.split()) or type(error).__name__
