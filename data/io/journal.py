"""The journal of unfinished work: what each file of a ``*.partial`` held when it was written.

``data.io.atomic`` adds a line for every file that it writes below such a folder. So whoever goes on
with the work of a killed process, or seals it, can tell a finished file from one that was cut,
changed or swapped since: a file counts as finished only if its bytes are those of a line with its
name. The journal stays in the finished artifact, where it proves files whose manifest is lost.

Each process has a file of its own, since appending is not safe on every shared file system.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PARTIAL = ".partial"  # how the names of folders of unfinished work end
JOURNAL = ".journal"  # the folder in them that holds the lines
PART = ".part"  # how the names of files end while they are written
_TOGETHER = 4  # files that are hashed at once


@dataclass(frozen=True)
class Written:
    """What a file held: its bytes as a number and as a hex SHA-256."""

    bytes: int
    sha256: str


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read now."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def contents(path: Path) -> Written:
    """What a file holds now."""
    return Written(path.stat().st_size, sha256_of(path))


def work_of(path: Path) -> Path | None:
    """The folder of unfinished work that a file lies in, if it lies in one."""
    return next((folder for folder in path.parents if folder.suffix == PARTIAL), None)


def add(folder: Path, files: Mapping[str, Written]) -> None:
    """Add lines to a folder's journal; they are on the disk when this returns.

    Args:
        files: by path relative to the folder.

    Raises:
        OSError: they cannot be written.
    """
    journal = folder / JOURNAL
    journal.mkdir(exist_ok=True)
    lines = [json.dumps([name, held.bytes, held.sha256]) for name, held in files.items()]
    # A line begins with its break: what a full disk cut before then spoils no other line.
    data = "".join(f"\n{line}" for line in lines).encode()
    path = journal / f"{platform.node()}-{os.getpid()}.jsonl"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_in(folder: Path) -> list[Path]:
    """Every file of a folder but its journal, sorted."""
    journal = folder / JOURNAL
    return sorted(p for p in folder.rglob("*") if p.is_file() and journal not in p.parents)


def keep_proven(
    folder: Path, also: Iterable[str] = ()
) -> tuple[dict[str, Written], dict[str, str]]:
    """Remove from unfinished work every file that the journal does not prove; reads all bytes.

    Nobody may write there meanwhile.

    Args:
        also: names of files that are removed in any case.

    Returns:
        What the files that are left hold, and what was wrong with the others, by relative path.
    """
    proofs, unwanted = _lines(folder), set(also)
    paths = {path.relative_to(folder).as_posix(): path for path in files_in(folder)}
    with ThreadPoolExecutor(_TOGETHER, "hash") as pool:
        found = dict(zip(paths, pool.map(_contents_or_error, paths.values()), strict=True))
    proven: dict[str, Written] = {}
    wrong: dict[str, str] = {}
    for name, path in paths.items():
        holds = found[name]
        if isinstance(holds, Written) and name not in unwanted and holds in proofs.get(name, ()):
            proven[name] = holds
            continue
        path.unlink(missing_ok=True)
        if name in unwanted or name.endswith(PART):
            continue
        if isinstance(holds, OSError):
            wrong[name] = f"cannot be read: {holds}"
        elif name not in proofs:
            wrong[name] = "nothing says that it was finished"
        else:
            wrong[name] = "not what was written"
    for inner in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        with suppress(OSError):  # it holds something
            inner.rmdir()
    return proven, wrong


def _contents_or_error(path: Path) -> Written | OSError:
    try:
        return contents(path)
    except OSError as error:
        return error


def _lines(folder: Path) -> dict[str, set[Written]]:
    """What was written under each name; a line that cannot be read proves nothing."""
    proofs: dict[str, set[Written]] = {}
    for path in sorted((folder / JOURNAL).glob("*.jsonl")):
        with suppress(OSError):
            for line in path.read_bytes().splitlines():
                with suppress(ValueError, TypeError):
                    name, size, digest = json.loads(line)
                    proofs.setdefault(str(name), set()).add(Written(size, digest))
    return proofs
