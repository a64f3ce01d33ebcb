"""Webdataset tar files."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import fsspec

from data.sources.base import Pair, Rejected
from data.sources.files import _Files

LARGEST_MEMBER = 64 << 20


IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif")


class TarFiles(_Files):
    """Webdataset tar files such as ``pixparse/cc3m-wds``: ``x.jpg`` and ``x.txt`` or ``x.json``.

    The path may hold wildcards and be any fsspec address. A damaged tar file is named and the next
    one is read.
    """

    def _rows(self, split: str) -> Iterator[Pair | Rejected]:
        for path in self.files(split):
            name = PurePosixPath(path).name
            stem, members = "", dict[str, bytes | None]()
            try:
                with fsspec.open(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as tar:
                    for member in tar:
                        if not member.isfile():
                            continue
                        found, dot, extension = PurePosixPath(member.name).name.partition(".")
                        found = str(PurePosixPath(member.name).parent / found)
                        if found != stem and members:
                            yield _example(split, name, stem, members)
                            members = {}
                        stem = found
                        large = member.size > LARGEST_MEMBER
                        handle = None if large else tar.extractfile(member)
                        members[dot + extension.lower()] = handle.read() if handle else None
            except (tarfile.TarError, EOFError, OSError) as error:
                # The example at hand may be short of its last bytes, so it goes with the damage.
                yield Rejected(f"{split}-{name}-damaged", "damaged_tar", f"{path}: {error}")
                continue
            if members:
                yield _example(split, name, stem, members)


def _example(
    split: str, tar: str, stem: str, members: Mapping[str, bytes | None]
) -> Pair | Rejected:
    key, place = f"{split}-{tar.removesuffix('.tar')}-{stem}", f"{tar}: {stem}"
    image = next((members[e] for e in IMAGES if e in members), None)
    try:
        text = members.get(".txt")
        about = json.loads(members.get(".json") or b"{}")
        caption = text.decode() if text is not None else about.get("caption")
        origin = about.get("url") or place
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        return Rejected(key, "bad_member", f"{place}: {error}")
    if not isinstance(caption, str):
        return Rejected(key, "no_caption", place)
    if image is None:
        return Rejected(key, "no_image", f"{place}: {sorted(members)}", caption)
    return Pair(key, caption, str(origin), "webdataset", image)
