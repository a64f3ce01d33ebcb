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
from typing import IO, Any, ClassVar, Self

import fsspec

from data.io.identity import file_digest
from data.sources.base import Pair, Rejected, SourceError, SourceSettings

LONGEST_LINE = 1 << 20
_BOM = "\ufeff"


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

    @classmethod
    def of(cls, settings: SourceSettings) -> Self:
        """The source of a recipe."""
        return cls(settings.paths, settings.limit)

    def identity(self) -> str:
        """Digest of what the files hold, and of their names below a common folder."""
        found = {}
        for split in self.splits():
            files = self.files(split)
            described = [describe(f) for f in files]
            rows = list(sliced(self.paths[split])[1])
            found[split] = [rows, list(zip(relative_names(files), described, strict=True))]
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
            SourceError: there are none.
        """
        pattern = sliced(self.paths[split])[0]
        system, inner = fsspec.core.url_to_fs(pattern)
        found = sorted(system.unstrip_protocol(f) for f in system.glob(inner))
        found = [f.removeprefix("file://") for f in found]
        if not found:
            raise SourceError(f"the split {split!r} has no file {pattern}; mend download.paths")
        return found

    def pairs(self, split: str) -> Iterator[Pair | Rejected]:
        """Stream the rows of a split."""
        start, stop = sliced(self.paths[split])[1]
        return islice(self.rows(split), start, limited(start, stop, self.limit))

    def rows(self, split: str) -> Iterator[Pair | Rejected]:
        """All rows of the files of a split."""
        raise NotImplementedError


@dataclass(frozen=True)
class Line:
    """A line of a list; ``reason`` says why it cannot be read."""

    key: str
    place: str
    text: str
    reason: str = ""


def lines(paths: Sequence[str], split: str) -> Iterator[Line]:
    """The lines of some files, numbered through; what cannot be read has a reason.

    A compressed file that is cut short ends with a line ``damaged_list``; those before it count.
    """
    number = 0
    for path in paths:
        source = _numbered(path)
        while True:
            key = f"{split}-{number:09d}"
            try:
                at, line = next(source)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 whatever a decompressor says of a cut file
                yield Line(key, f"{path}: {error}", "", "damaged_list")
                number += 1
                break
            number += 1
            place = f"{path} line {at}"
            if line is None:
                yield Line(key, place, "", "line_too_long")
                continue
            try:
                text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
            except UnicodeDecodeError:
                yield Line(key, place, "", "not_utf8")
            else:
                yield Line(key, place, text.removeprefix(_BOM) if at == 1 else text)


def _numbered(path: str) -> Iterator[tuple[int, bytes | None]]:
    with fsspec.open(path, "rb", compression="infer") as file:
        yield from enumerate(_bounded(file), 1)


def _bounded(file: IO[bytes]) -> Iterator[bytes | None]:
    """Lines of a file, None for one that is longer than any caption and address can be."""
    while line := file.readline(LONGEST_LINE):
        if len(line) < LONGEST_LINE or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE)
        yield None


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
    about = system.info(inner)
    version = about.get("ETag") or about.get("etag") or about.get("mtime") or about.get("created")
    return [path, about.get("size"), str(version)]
