"""What sources that are a list of files for each split have in common."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

import fsspec
from fsspec.implementations.http import HTTPFileSystem, has_magic

from data.io.identity import file_digest
from data.sources.base import Bookmarks, Pair, Rejected, SourceError, SourceSettings
from data.sources.http_stream import HttpStream

_MOST_FILES = 1_000_000  # of a range in a path
_VERSIONS = ("ETag", "etag", "mtime", "created", "blob_id")  # as file systems name them


@dataclass(frozen=True)
class FileSource:
    """A source that is a list of files for each split.

    Attributes:
        paths: split -> path or fsspec address, with wildcards where that is said. The suffix
            ``[from:to]`` takes some rows: ``{"validation": "v.tsv[:5000]", "test":
            "v.tsv[5000:]"}`` makes two splits of one list.
        limit: at most this many rows of each split, or None for all.
    """

    paths: Mapping[str, str]
    limit: int | None = None
    remote: ClassVar[bool] = False
    names_bear: ClassVar[bool] = False  # on the rows: keys are made of them

    @classmethod
    def of(cls, settings: SourceSettings) -> Self:
        """The source of a recipe."""
        return cls(settings.paths, settings.limit)

    def identity(self) -> str:
        """Digest of what the files hold and, if that bears, of their names below a folder."""
        found = {}
        for split in self.splits():
            files = self.files(split)
            described = [describe(f) for f in files]
            rows = list(sliced(self.paths[split])[1])
            found[split] = [rows, described, relative_names(files) if self.names_bear else None]
        all_of_it = [type(self).__name__, self.limit, found, self.more_identity()]
        return hashlib.sha256(json.dumps(all_of_it, sort_keys=True).encode()).hexdigest()

    def more_identity(self) -> object:
        """What else the rows depend on."""
        return None

    def splits(self) -> list[str]:
        """The splits, in the order in which they are given."""
        if not self.paths:
            raise SourceError("the source has no files; set download.paths, such as {'train': ...}")
        return list(self.paths)

    def files(self, split: str) -> list[str]:
        """The files of a split, sorted.

        Raises:
            SourceError: there are none, or there is no way to list them.
        """
        pattern = sliced(self.paths[split])[0]
        try:
            found = sorted(_listed(pattern))
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(
                f"cannot list {pattern} of the split {split!r} ({type(error).__name__}: {error}); "
                "mend download.paths"
            ) from error
        if not found:
            raise SourceError(f"the split {split!r} has no file {pattern}; mend download.paths")
        for path in found:
            if Path(path).is_dir():
                raise SourceError(
                    f"{path}, of the split {split!r}, is a folder; name files in download.paths, "
                    f"such as {path}/*.tar"
                )
        return found

    def pairs(self, split: str, bookmarks: Bookmarks | None = None) -> Iterator[Pair | Rejected]:
        """Stream the rows of a split."""
        bookmarks = Bookmarks() if bookmarks is None else bookmarks
        start, stop = sliced(self.paths[split])[1]
        end, start = limited(start, stop, self.limit), start + bookmarks.start
        at, rows = self.rows_near(split, start, bookmarks)
        return islice(rows, start - at, None if end is None else max(0, end - at))

    def rows_near(
        self, split: str, row: int, bookmarks: Bookmarks
    ) -> tuple[int, Iterator[Pair | Rejected]]:
        """All rows of a split from a known one on, at or before ``row``, and that one's number."""
        del row, bookmarks
        return 0, self.rows(split)

    def rows(self, split: str) -> Iterator[Pair | Rejected]:
        """All rows of the files of a split."""
        raise NotImplementedError


def braced(pattern: str) -> list[str]:
    """``{00000..00331}`` and ``{a,b}`` in a path as the paths that they stand for."""
    found = re.fullmatch(r"(.*?)\{([^{}]*)\}(.*)", pattern)
    if found is None:
        return [pattern]
    before, inner, after = found.groups()
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inner)
    if numbers is None:
        parts = inner.split(",")
    else:
        first, last = numbers.groups()
        if int(last) - int(first) >= _MOST_FILES:
            raise SourceError(f"{pattern} names more than {_MOST_FILES:,} files")
        parts = [f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)]
    return [before + part + rest for part in parts for rest in braced(after)]


def _listed(pattern: str) -> Iterator[str]:
    """The files of a pattern; one that is there by that very name is meant itself."""
    system, inner = fsspec.core.url_to_fs(pattern)
    if isinstance(system, HTTPFileSystem):  # asking costs a request each, and ``describe`` asks
        for part in braced(pattern):
            yield from system.glob(part) if has_magic(part) else [part]
        return
    parts = [pattern] if system.isfile(inner) else braced(pattern)
    for part in parts:
        inner = fsspec.core.url_to_fs(part)[1]
        files = [inner] if system.isfile(inner) else system.glob(inner)
        if not files and part != pattern:
            raise SourceError(
                f"there is no file {part}, which {pattern} names; mend download.paths"
            )
        for file in files:
            yield str(system.unstrip_protocol(file)).removeprefix("file://")


def sliced(text: str) -> tuple[str, tuple[int, int | None]]:
    """``a.tsv[2:5]`` as the path and the rows."""
    found = re.fullmatch(r"(.*)\[(\d*):(\d*)\]", text)
    if found is None:
        return text, (0, None)
    path, start, stop = found.groups()
    return path, (int(start or 0), int(stop) if stop else None)


def limited(start: int, stop: int | None, limit: int | None) -> int | None:
    """Where the rows from ``start`` on end, given an end and a limit."""
    ends = [end for end in (stop, None if limit is None else start + limit) if end is not None]
    return min(ends, default=None)


def relative_names(paths: Sequence[str]) -> list[str]:
    """The files by what tells them apart: their paths below the folder that all are in."""
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, folder or ".") for path in paths]


def describe(path: str) -> list[Any]:
    """What identifies a file: the digest of a local one, size and version of all else."""
    local = Path(path)
    if local.exists():
        return [file_digest(local)]
    system, inner = fsspec.core.url_to_fs(path)
    if isinstance(system, HTTPFileSystem):
        with HttpStream(path, path) as stream:
            found = stream.version()
        return [path, found.size, found.etag or found.modified]
    about = system.info(inner)
    version = next((about[k] for k in _VERSIONS if about.get(k)), None)
    return [path, about.get("size"), str(version)]
