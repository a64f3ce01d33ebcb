"""Lists of captions, line by line: what cannot be read is a line with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data.sources.opening import Inflated, damaged, opened

LONGEST_LINE = 1 << 20
_BOM = "\ufeff"


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
            except Exception as error:  # whatever a decompressor says of a cut file
                if not damaged(path, error):
                    raise
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
    with opened(path) as file:
        yield from enumerate(_bounded(file), 1)


def _bounded(file: Inflated) -> Iterator[bytes | None]:
    """Lines of a file, None for one that is longer than any caption and address can be."""
    while line := file.readline(LONGEST_LINE):
        if len(line) < LONGEST_LINE or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE)
        yield None
