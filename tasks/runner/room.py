"""Room on the disk for the work of stages: looked at before it begins, named when it is gone."""

from __future__ import annotations

import errno
from pathlib import Path

from data.io.atomic import WriteError
from data.io.disk import free_bytes

_NO_ROOM = 1 << 20  # bytes: with fewer left, any error is the disk's
LEAST_FREE = "runtime.minimum_free_bytes"


class DiskFullError(OSError):
    """Too little room is left for a stage."""


def check_room(folder: Path, wanted: int, what: str) -> None:
    """See that a folder's disk has so many bytes free.

    Args:
        folder: need not exist. what: what wants them, for the message.

    Raises:
        DiskFullError: it has not; says where, how many are free and what to do.
    """
    free = free_bytes(folder)
    if free < wanted:
        raise DiskFullError(
            f"{free / 1e9:.2f} GB are free at {folder}, fewer than the {wanted / 1e9:.2f} GB of "
            f"{what}; make room, or set GILL_VAR to a larger disk, and run again: what is "
            "finished is kept"
        )


def full_disk(folder: Path, error: BaseException) -> DiskFullError | None:
    """What to say of an error that a full disk has led to, whoever met it first; None for others.

    A file that could not be written says so itself (``WriteError``); a database says less.
    """
    if not isinstance(error, Exception) or isinstance(error, WriteError | DiskFullError):
        return None
    free = free_bytes(folder)
    if free > _NO_ROOM and "disk is full" not in str(error):
        return None
    cause = str(error).strip().partition("\n")[0]
    return DiskFullError(
        errno.ENOSPC,
        f"the disk is full at {folder} ({free:,} bytes are free): {cause}. Make room and run "
        "again: what is finished is kept",
    )
