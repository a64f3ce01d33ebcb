"""Webdataset tar files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import fsspec

from data.sources.base import Pair, Rejected, storable
from data.sources.files import FileSource, relative_names
from data.sources.tar import Archive

LARGEST_MEMBER = 64 << 20  # bytes
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif")

Members = dict[str, bytes | None]


class TarFiles(FileSource):
    """Webdataset tar files such as ``pixparse/cc3m-wds``: ``x.jpg`` and ``x.txt`` or ``x.json``.

    The path may hold wildcards and be any fsspec address. A damaged tar file is named and the next
    one is read. A key is made of the tar's name (of its path, where several folders are read) and
    the example's.
    """

    def rows(self, split: str) -> Iterator[Pair | Rejected]:
        """All examples of the tar files of a split."""
        files = self.files(split)
        for path, name in zip(files, relative_names(files), strict=True):
            seen: set[str] = set()
            try:
                for number, (stem, members) in enumerate(_examples(path)):
                    row = _row(split, _text(name), stem, members)
                    if stem in seen:
                        key = f"{row.key}#{number}"
                        yield Rejected(key, "duplicate_key", f"{_text(name)}: {stem}", row.caption)
                    else:
                        yield row
                    seen.add(stem)
            except Exception as error:  # noqa: BLE001 whatever its bytes make a reader say
                place = f"{_text(path)}: {_text(str(error))}, after {len(seen)} examples"
                yield Rejected(f"{split}-{_text(name)}-damaged", "damaged_tar", place)


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
    except Exception:
        if members:
            yield stem, members
        raise
    if members:
        yield stem, members


def _members(path: str) -> Iterator[tuple[PurePosixPath, bytes | None]]:
    """Names and bytes of a tar's files; no bytes for what is too large."""
    # The decompressor checks sums, which the tar reader's own does not.
    with fsspec.open(path, "rb", compression="infer") as raw, Archive.read(raw) as tar:
        for member in tar:
            name = PurePosixPath(_text(member.name))
            if not member.isfile() or name.name.startswith("._"):  # a Mac's notes on a file
                continue
            handle = None if member.size > LARGEST_MEMBER else tar.extractfile(member)
            yield name, handle.read() if handle else None


def _row(split: str, tar: str, stem: str, members: Mapping[str, bytes | None]) -> Pair | Rejected:
    key, place = f"{split}-{tar.removesuffix('.tar')}-{stem}", f"{tar}: {stem}"
    image = next((members[e] for e in IMAGES if e in members), None)
    try:
        text = members.get(".txt")
        about = json.loads(members.get(".json") or b"{}")
        caption = text.decode() if text is not None else about.get("caption")
        origin = str(about.get("url") or place)
    except (ValueError, AttributeError, RecursionError) as error:
        return Rejected(key, "bad_member", f"{place}: {error}")
    if not isinstance(caption, str):
        return Rejected(key, "no_caption", place)
    if not storable(caption) or not storable(origin):
        return Rejected(key, "bad_text", place)
    if image is None:
        return Rejected(key, "no_image", f"{place}: {sorted(members)}", caption)
    return Pair(key, caption, origin, "webdataset", image)


def _text(name: str) -> str:
    """A name that is not UTF-8 as one that is."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
