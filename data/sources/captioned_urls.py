"""CC3M as its publisher gives it: captions and addresses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

from data.faults import Tolerance
from data.sources.base import Pair, Rejected, guarded
from data.sources.files import FileSource
from data.sources.lists import Line, lines


class CaptionedUrls(FileSource):
    """CC3M as its publisher gives it: ``caption<TAB>url`` lines without a header, plain or gzip.

    Lines end at a newline and nowhere else, quotes mean nothing, and the address follows the last
    tab, so that every caption is kept word for word.
    """

    remote: ClassVar[bool] = True

    def rows(self, split: str) -> Iterator[Pair | Rejected]:
        """All lines of the lists of a split."""
        faults = Tolerance("lines")
        for line in lines(self.files(split), split):
            yield guarded(partial(_row, line), line.key, line.place, faults)


def _row(line: Line) -> Pair | Rejected:
    caption, tab, url = line.text.rpartition("\t")
    if not tab:
        return Rejected(line.key, line.reason or "no_tab", line.place, line.text)
    return Pair(line.key, caption, url.strip(), "cc3m", None)
