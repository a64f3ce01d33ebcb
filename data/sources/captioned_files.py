"""The reference implementation's list, and a folder of image files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from data.faults import Tolerance
from data.io.identity import folder_digest
from data.sources.base import Pair, Rejected, SourceError, SourceSettings, guarded
from data.sources.files import FileSource
from data.sources.lists import Line, lines
from data.sources.opening import read_below

_HEADER = "caption\timage"


@dataclass(frozen=True)
class CaptionedFiles(FileSource):
    """The reference implementation's list: ``caption<TAB>image`` with a header, and a folder.

    Attributes:
        images: the folder that the names in the list are in.
    """

    images: str = ""

    @classmethod
    def of(cls, settings: SourceSettings) -> Self:
        """The source of a recipe."""
        return cls(settings.paths, settings.limit, settings.images)

    def more_identity(self) -> object:
        """What the folder holds."""
        return folder_digest(self._folder())

    def rows(self, split: str) -> Iterator[Pair | Rejected]:
        """All lines of the lists of a split but their headers."""
        folder, faults = self._folder().resolve(), Tolerance("lines")
        for line in lines(self.files(split), split):
            if line.text != _HEADER:
                yield guarded(partial(_row, line, folder), line.key, line.place, faults)

    def _folder(self) -> Path:
        folder = Path(self.images)
        if not self.images or not folder.is_dir():
            raise SourceError(f"download.images is {self.images!r}, which is no folder")
        return folder


def _row(line: Line, folder: Path) -> Pair | Rejected:
    caption, tab, name = line.text.rpartition("\t")
    if not tab:
        return Rejected(line.key, line.reason or "no_tab", line.place, line.text)
    place = f"{line.place}: {name[:300]}"
    found = read_below(folder, name)
    if isinstance(found, str):
        return Rejected(line.key, found, place, caption)
    return Pair(line.key, caption, name, "folder", found)
