"""What a file or folder holds, as a digest: two are the same when their bytes and names are.

Hashing is not repeated for what was seen: a digest is remembered by path, size, inode and times of
change (of the contents, and of anything at all: a tool may set the first back but not the second).
What changed within the last seconds is not remembered, since another change might leave the same
times. ``remember_in`` keeps digests of large files and of folders beyond the end of the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from data.io.atomic import WriteError, write_json
from data.io.journal import sha256_of

_SETTLED = 2.0  # seconds: the coarsest clock of file systems
_KEPT_FROM = 1 << 20  # bytes: smaller files are hashed again sooner than looked up


class _Memory:
    """Digests that were made before, by where and when their files were seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digests: dict[str, str] = {}
        self._kept: dict[str, str] = {}
        self._record: Path | None = None

    def keep_in(self, record: Path) -> None:
        """See ``remember_in``."""
        with self._lock:
            if record == self._record:
                return
            self._record, self._kept = record, {}
            with suppress(OSError, ValueError):
                found = json.loads(record.read_bytes())
                if isinstance(found, dict):
                    self._kept = {k: v for k, v in found.items() if isinstance(v, str)}

    def digest(self, names: Sequence[str], paths: Sequence[Path], make: Callable[[], str]) -> str:
        """``make()``, or what it gave when these files were as they are now."""
        began, seen = time.time(), [path.stat() for path in paths]
        stamps = _stamps(names, seen)
        key = hashlib.sha256(repr(stamps).encode()).hexdigest()
        known = self._digests.get(key) or self._kept.get(key)
        if known is not None:
            return known
        digest = make()
        newest = max((max(s.st_mtime, s.st_ctime) for s in seen), default=0.0)
        settled = newest < began - _SETTLED
        if settled and _stamps(names, [path.stat() for path in paths]) == stamps:
            with self._lock:
                self._digests[key] = digest
                if self._record is not None and sum(s.st_size for s in seen) >= _KEPT_FROM:
                    self._kept[key] = digest
                    with suppress(WriteError):  # it is hashed again then
                        write_json(self._record, self._kept)
        return digest


_MEMORY = _Memory()


def remember_in(record: Path) -> None:
    """Keep digests in a file, and use those that are there; one that cannot be read begins anew.

    Args:
        record: JSON, which may be deleted at any time.
    """
    _MEMORY.keep_in(record)


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, of now or of when the file was last changed.

    Raises:
        OSError: it cannot be read.
    """
    return _MEMORY.digest([str(path.absolute())], [path], lambda: sha256_of(path))


def folder_digest(folder: Path) -> str:
    """Digest of the names and bytes of every file below a folder.

    Raises:
        OSError: a file cannot be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]

    def make() -> str:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            listed = list(zip(names, pool.map(sha256_of, paths), strict=True))
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()

    return _MEMORY.digest([str(folder.absolute()), *names], paths, make)


def content_digest(path: Path) -> str:
    """Digest of what is at a path: of a file's bytes, or of the names and bytes in a folder.

    Raises:
        OSError: there is nothing, or it cannot be read.
    """
    return folder_digest(path) if path.is_dir() else file_digest(path)


def _stamps(names: Sequence[str], seen: Sequence[os.stat_result]) -> tuple[object, ...]:
    times = [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in seen]
    return tuple(names), tuple(times)
