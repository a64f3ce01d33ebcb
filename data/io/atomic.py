"""The one way in which files are written: a reader sees the old file or the whole new one."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from data.io import journal
from data.io.disk import free_bytes
from data.io.journal import PART

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


class WriteError(OSError):
    """A file could not be written; nothing of it was left behind."""


def unwritten(path: str | Path, error: OSError, size: int | None = None) -> WriteError:
    """What to say when a file cannot be written, after so many bytes."""
    after = "" if size is None else f" after {size:,} bytes"
    free = ""
    if error.errno in _NO_ROOM:
        free = f", {free_bytes(Path(path).parent):,} bytes are free there"
    said = WriteError(
        f"cannot write {path}{after}: {error.strerror or error}{free}. Make room (or mend the "
        "store) and run again: what is finished is kept."
    )
    said.errno = error.errno
    return said


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name when the block ends well.

    Its bytes are on the disk before the name is, and the name before this returns, so neither a
    kill nor a power cut leaves a part of it. Several writers of one path do not meet: the last wins
    whole. In a folder of unfinished work the file is entered in the journal.

    Raises:
        WriteError: there is no room or no way to write; what was there before is unchanged.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}{PART}")
    size = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as handle:
            try:
                yield handle
                handle.flush()
            except OSError:
                size = _length(part)
                raise
            os.fsync(handle.fileno())
        work = journal.work_of(path)
        holds = None if work is None else journal.contents(part)
        part.replace(path)
        _keep_names(path.parent)
        if work is not None and holds is not None:
            journal.add(work, {path.relative_to(work).as_posix(): holds})
    except OSError as error:
        if isinstance(error, WriteError):
            raise
        raise unwritten(path, error, size) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes whole or not at all, see ``atomic_file``."""
    with atomic_file(path) as handle:
        handle.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all, see ``atomic_file``."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """JSON as it is written everywhere: indented, with a newline at its end."""
    return (json.dumps(value, indent=2) + "\n").encode()


def sweep(folder: Path) -> None:
    """Remove what killed writers left below a folder, while nobody writes there."""
    for part in folder.rglob(f"*{PART}"):
        part.unlink(missing_ok=True)


def _keep_names(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    with suppress(OSError):  # some file systems cannot, and need not
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _length(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
