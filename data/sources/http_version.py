"""What an answer of a web server says of the file that it is of."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Version:
    """What tells one version of a file from another, as far as the server says it.

    Attributes:
        size: in bytes.
    """

    etag: str = ""
    modified: str = ""
    size: int | None = None

    @classmethod
    def of(cls, answer: httpx.Response) -> Version:
        """What the headers of an answer say; a part of a file tells the size of the whole."""
        headers = answer.headers
        part = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", headers.get("Content-Range", ""))
        size = part[1] if part else None
        if answer.status_code == 200:
            size = headers.get("Content-Length")
        etag = headers.get("ETag", "").removeprefix("W/")
        return cls(etag, headers.get("Last-Modified", ""), int(size) if size else None)

    def differs(self, other: Version) -> bool:
        """Whether both say something, and not the same; the date tells where there is no ETag."""
        if self.size is not None and other.size is not None and self.size != other.size:
            return True
        if self.etag and other.etag:
            return self.etag != other.etag
        return bool(self.modified and other.modified and self.modified != other.modified)

    def joined(self, other: Version) -> Version:
        """What both say together."""
        size = self.size if self.size is not None else other.size
        return Version(self.etag or other.etag, self.modified or other.modified, size)

    def __str__(self) -> str:
        said = [f"ETag {self.etag}"] if self.etag else []
        said += [f"of {self.modified}"] if self.modified else []
        said += [f"{self.size:,} bytes"] if self.size is not None else []
        return ", ".join(said) or "unnamed"


def first_byte(answer: httpx.Response) -> int | None:
    """Where a partial answer says that it begins, -1 where it says nothing; None: it is whole."""
    if answer.status_code != 206:
        return None
    said = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", answer.headers.get("Content-Range", ""))
    return int(said[1]) if said else -1
