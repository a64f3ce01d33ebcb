"""Webdataset tar files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import ClassVar

from data.faults import SystematicFaultError, Tolerance
from data.sources.base import Bookmarks, Pair, Rejected, guarded, printable, storable
from data.sources.files import FileSource, relative_names
from data.sources.opening import LARGEST_FILE, damaged, opened
from data.sources.tar import Archive

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
_LARGEST = {".txt": 1 << 20, ".json": 1 << 20, **dict.fromkeys(IMAGES, LARGEST_FILE)}  # bytes

Members = dict[str, bytes | None]  # by extension; no bytes where there are too many


class TarFiles(FileSource):
    """Webdataset tar files such as ``pixparse/cc3m-wds``: ``x.jpg`` and ``x.txt`` or ``x.json``.

    The path may hold wildcards and be any fsspec address. A damaged tar file is named and the next
    one is read; what a network does is no damage (``data.sources.http_stream``). A key is a path:
    the split, the tar's place below the folder that all are in, and the example's in the tar. So no
    two examples of a data set have the same.
    """

    names_bear: ClassVar[bool] = True

    def rows_near(
        self, split: str, row: int, bookmarks: Bookmarks
    ) -> tuple[int, Iterator[Pair | Rejected]]:
        """All examples from the first of a tar on, and their number; earlier tars stay closed."""
        at, tar = bookmarks.nearest(row)
        return at, self._examples(split, at, tar, bookmarks)

    def _examples(
        self, split: str, at: int, first: int, bookmarks: Bookmarks
    ) -> Iterator[Pair | Rejected]:
        """The examples from those of the tar number ``first`` on; notes where the next begin."""
        files = self.files(split)
        names = [printable(name) for name in relative_names(files)]
        faults = Tolerance("examples")
        for number in range(first, len(files)):
            for row in self._of_tar(split, files[number], names[number], faults):
                yield row
                at += 1
            bookmarks.note(at, number + 1)

    @staticmethod
    def _of_tar(split: str, path: str, name: str, faults: Tolerance) -> Iterator[Pair | Rejected]:
        seen: set[str] = set()
        try:
            for number, (stem, members) in enumerate(_examples(path)):
                key, place = f"{split}/{name}/{stem}", f"{name}: {stem}"
                row = guarded(partial(_row, key, place, members), key, place, faults)
                if stem in seen:  # no path of an example has an empty part
                    yield Rejected(f"{key}//{number}", "duplicate_key", place, row.caption)
                else:
                    yield row
                seen.add(stem)
        except SystematicFaultError:
            raise
        except Exception as error:  # whatever its bytes make a reader say
            if not damaged(path, error):
                raise
            place = printable(f"{path}: {error}, after {len(seen)} examples")
            yield Rejected(f"{split}/{name}//damaged", "damaged_tar", place)


def _examples(path: str) -> Iterator[tuple[str, Members]]:
    """The members of a tar that follow each other and differ in their endings only.

    Where the tar is damaged, those before the damage are given first.
    """
    stem, members = "", Members()
    try:
        for name, data in _members(path):
            first, dot, ending = name.name.partition(".")
            extension, found = dot + ending.lower(), str(name.parent / first)
            if members and (found != stem or extension in members):
                yield stem, members
                members = {}
            stem, members[extension] = found, data
    except Exception as error:
        if members and damaged(path, error):  # else the rest of them may still come
            yield stem, members
        raise
    if members:
        yield stem, members


def _members(path: str) -> Iterator[tuple[PurePosixPath, bytes | None]]:
    """Names and bytes of a tar's files; empty ones for what is of no use, none for too many."""
    # The decompressor checks sums, which the tar reader's own does not.
    with opened(path) as raw, Archive.read(raw) as tar:
        for member in tar:
            name = PurePosixPath(printable(member.name))
            if not member.isfile() or name.name.startswith("._"):  # a Mac's notes on a file
                continue
            most = _LARGEST.get("".join(name.name.partition(".")[1:]).lower(), 0)
            if member.size > most:
                yield name, None if most else b""
                continue
            handle = tar.extractfile(member)
            yield name, handle.read() if handle else b""


def _row(key: str, place: str, members: Mapping[str, bytes | None]) -> Pair | Rejected:
    large = [e for e, data in members.items() if data is None]
    if large:
        return Rejected(key, "too_large", f"{place}: {large}")
    image = next((members[e] for e in IMAGES if e in members), None)
    try:
        text = members.get(".txt")
        about = json.loads(members.get(".json") or b"{}")
        caption = text.decode("utf-8-sig") if text is not None else about.get("caption")
        origin = str(about.get("url") or place)
    except (ValueError, AttributeError, RecursionError) as error:
        return Rejected(key, "bad_member", f"{place}: {str(error)[:300]}")
    if not isinstance(caption, str):
        return Rejected(key, "no_caption", place)
    if not storable(caption) or not storable(origin):
        return Rejected(key, "bad_text", place)
    if image is None:
        return Rejected(key, "no_image", f"{place}: {sorted(members)}", caption)
    return Pair(key, caption, origin, "webdataset", image)
