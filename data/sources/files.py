"""Sources that are a list of files for each split."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, ClassVar

import fsspec

from data.artifacts import sha256_of
from data.sources.base import Pair, Rejected, SourceError

LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class _Files:
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

    def identity(self) -> str:
        """Digest of the files: of their contents where they are local, else of what is known."""
        found = {split: [_describe(f) for f in self.files(split)] for split in self.splits()}
        described = [type(self).__name__, dict(self.paths), self.limit, found, self._more()]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

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
        pattern = _sliced(self.paths[split])[0]
        system, inner = fsspec.core.url_to_fs(pattern)
        found = sorted(system.unstrip_protocol(f) for f in system.glob(inner))
        found = [f.removeprefix("file://") for f in found]
        if not found:
            raise SourceError(f"the split {split!r} has no file {pattern}; mend download.paths")
        return found

    def pairs(self, split: str) -> Iterator[Pair | Rejected]:
        """Stream the rows of a split."""
        start, stop = _sliced(self.paths[split])[1]
        if self.limit is not None:
            stop = start + self.limit if stop is None else min(stop, start + self.limit)
        return islice(self._rows(split), start, stop)

    def _rows(self, split: str) -> Iterator[Pair | Rejected]:
        raise NotImplementedError

    def _more(self) -> object:
        """What else the rows depend on."""
        return None


def _lines(paths: Sequence[str], split: str) -> Iterator[tuple[str, str, str, str]]:
    """Key, place, text and, where a line of some files cannot be read, the reason."""
    number = 0
    for path in paths:
        with fsspec.open(path, "rb", compression="infer") as file:
            for at, line in enumerate(_bounded(file), 1):
                key, place = f"{split}-{number:09d}", f"{path} line {at}"
                number += 1
                if line is None:
                    yield key, place, "", "line_too_long"
                    continue
                try:
                    text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
                except UnicodeDecodeError:
                    yield key, place, "", "not_utf8"
                else:
                    yield key, place, text, ""


def _bounded(file: IO[bytes]) -> Iterator[bytes | None]:
    """Lines of a file, None for one that is longer than any caption and address can be."""
    while line := file.readline(LONGEST_LINE):
        if len(line) < LONGEST_LINE or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE)
        yield None


def _sliced(text: str) -> tuple[str, tuple[int, int | None]]:
    """``a.tsv[2:5]`` as the path and the rows."""
    found = re.fullmatch(r"(.*)\[(\d*):(\d*)\]", text)
    if found is None:
        return text, (0, None)
    path, start, stop = found.groups()
    return path, (int(start or 0), int(stop) if stop else None)


def _describe(path: str) -> list[object]:
    """What identifies a file: the digest of a local list, size and version of all else."""
    local = Path(path)
    if local.exists():
        stat = local.stat()
        if local.suffix in {".tsv", ".gz", ".txt"}:
            return [local.name, sha256_of(local)]
        return [local.name, stat.st_size, stat.st_mtime_ns]
    system, inner = fsspec.core.url_to_fs(path)
    about = system.info(inner)
    version = about.get("ETag") or about.get("etag") or about.get("mtime") or about.get("created")
    return [path, about.get("size"), str(version)]
