"""CC3M as its publisher gives it: captions and addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from data.sources.base import Pair, Rejected
from data.sources.files import FileSource, lines


class CaptionedUrls(FileSource):
    """CC3M as its publisher gives it: ``caption<TAB>url`` lines without a header, plain or gzip.

    Lines end at a newline and nowhere else, quotes mean nothing, and the address follows the last
    tab, so that every caption is kept word for word.
    """

    remote: ClassVar[bool] = True

    def rows(self, split: str) -> Iterator[Pair | Rejected]:
        """All lines of the lists of a split."""
        for line in lines(self.files(split), split):
            caption, tab, url = line.text.rpartition("\t")
            if not tab:
                yield Rejected(line.key, line.reason or "no_tab", line.place, line.text)
            else:
                yield Pair(line.key, caption, url.strip(), "cc3m", None)
