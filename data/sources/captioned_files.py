"""The reference implementation's list, and a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.sources.base import Pair, Rejected, SourceError
from data.sources.files import _Files, _lines


@dataclass(frozen=True)
class CaptionedFiles(_Files):
    """The reference implementation's list: ``caption<TAB>image`` with a header, and a folder.

    Attributes:
        images: the folder that the names in the list are in.
    """

    images: str = ""

    def _rows(self, split: str) -> Iterator[Pair | Rejected]:
        folder = Path(self.images)
        if not folder.is_dir():
            raise SourceError(f"download.images is {self.images!r}, which is no folder")
        for key, place, line, reason in _lines(self.files(split), split):
            if line == "caption\timage":
                continue
            caption, tab, name = line.rpartition("\t")
            path = (folder / name).resolve()
            if not tab:
                yield Rejected(key, reason or "no_tab", place, line)
            elif not path.is_relative_to(folder.resolve()):
                yield Rejected(key, "outside_folder", place, caption)
            elif not path.is_file():
                yield Rejected(key, "missing_file", f"{place}: {name}", caption)
            else:
                yield Pair(key, caption, name, "folder", path.read_bytes())

    def _more(self) -> object:
        return self.images
