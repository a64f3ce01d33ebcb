"""Files that a user names, opened with bounds: lists and archives as streams, images whole."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import fsspec
from fsspec.compression import compr
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import infer_compression
from huggingface_hub import HfFileSystem
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from data.sources.base import SourceError
from data.sources.http_stream import HttpStream

LARGEST_FILE = 64 << 20  # bytes, of an image
_BUFFER = 1 << 20  # bytes of a stream
_INFLATED = 100  # times its stored size is what no honest list or archive of images comes to
_INFLATED_FROM = 64 << 20  # bytes


class InflationError(OSError):
    """A compressed file that grows beyond all measure."""


# What readers say of bytes that are wrong, wherever they come from.
_DAMAGE = (tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, InflationError)


def damaged(path: str, error: Exception) -> bool:
    """Whether an error is of the file's own bytes: a network's may be gone with the next try."""
    return isinstance(error, _DAMAGE) or isinstance(fsspec.open(path).fs, LocalFileSystem)


class Inflated:
    """A file as it is read, decompressed; one that grows beyond all measure is refused.

    Args:
        stored: tells how many of its stored bytes were read so far.
    """

    def __init__(self, file: IO[bytes], stored: Callable[[], int]) -> None:
        self._file, self._stored, self._given = file, stored, 0

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes, or to the end."""
        return self._counted(self._file.read(size))

    def readline(self, size: int = -1) -> bytes:
        """Read to the end of the line, at most so many bytes."""
        return self._counted(self._file.readline(size))

    def _counted(self, data: bytes) -> bytes:
        self._given += len(data)
        most = max(_INFLATED_FROM, _INFLATED * self._stored())
        if self._given > most:
            raise InflationError(f"it grows to more than {most:,} bytes")
        return data


@contextmanager
def opened(path: str) -> Iterator[Inflated]:
    """A file, decompressed by its suffix, at most 100 times as large as what was read of it."""
    codec = infer_compression(path.partition("?")[0])
    with _stored(path) as stored:
        file, read = stored
        if codec == "zip" and not file.seekable():
            raise SourceError(f"{path} is a zip, which cannot be read as a stream; copy it here")
        yield Inflated(compr[codec](file, mode="rb") if codec else file, read)


@contextmanager
def _stored(path: str) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
    """The bytes of a file as they are stored, and how many of them were read."""
    system = fsspec.core.url_to_fs(path)[0]
    if not isinstance(system, HTTPFileSystem | HfFileSystem):
        with fsspec.open(path, "rb") as file:
            yield file, file.tell
        return
    url, headers = path, {}
    if isinstance(system, HfFileSystem):
        url, headers = system.url(path), build_hf_headers(token=system.token)
    with HttpStream(path, url, headers) as stream:
        yield io.BufferedReader(stream, _BUFFER), lambda: stream.at


def read_below(folder: Path, name: str) -> bytes | str:
    """The bytes of a file below a folder, or the reason for which there are none.

    A link that leads out of the folder is not followed: whoever wrote the list may not read what
    whoever runs it can.
    """
    try:
        whole, path = folder.resolve(), (folder / name).resolve()
        if not path.is_relative_to(whole):
            return "outside_folder"
        if not path.is_file():
            return "missing_file"
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError, RuntimeError):
        # Too long a name, a NUL in it, a loop of links, a file that may not be read.
        return "unreadable_file"
    return data if len(data) <= LARGEST_FILE else "too_large"
