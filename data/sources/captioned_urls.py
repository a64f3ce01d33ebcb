"""CC3M as its publisher gives it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from data.sources.base import Pair, Rejected
from data.sources.files import _Files, _lines


class CaptionedUrls(_Files):
    """CC3M as its publisher gives it: ``caption<TAB>url`` lines without a header, plain or gzip.

    Lines end at a newline and nowhere else, quotes mean nothing, and the address follows the last
    tab, so that every caption is kept word for word.
    """

    remote: ClassVar[bool] = True

    def _rows(self, split: str) -> Iterator[Pair | Rejected]:
        for key, place, line, reason in _lines(self.files(split), split):
            caption, tab, url = line.rpartition("\t")
            if not tab:
                yield Rejected(key, reason or "no_tab", place, line)
            else:
                yield Pair(key, caption, url.strip(), "cc3m", None)
