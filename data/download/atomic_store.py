"""A folder, here or at any fsspec address, in which a file is whole or absent."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from data.io.atomic import atomic_file, json_bytes, sweep, unwritten
from data.io.journal import sha256_of, work_of


class Store:
    """Files by relative name under an address such as ``/data/cc3m`` or ``s3://bucket/cc3m``."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._files, self._root = fsspec.core.url_to_fs(address)
        self.local = isinstance(self._files, LocalFileSystem)

    def path(self, name: str) -> str:
        """The full path of a file, as the file system spells it."""
        return f"{self._root.rstrip('/')}/{name}"

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return bool(self._files.exists(self.path(name)))

    def names(self, folder: str, suffix: str) -> list[str]:
        """Sorted names of the files of a folder that end in ``suffix``."""
        self._files.invalidate_cache()
        if not self._files.exists(self.path(folder)):
            return []
        found = self._files.ls(self.path(folder), detail=False)
        return sorted(n for n in (str(f).rpartition("/")[2] for f in found) if n.endswith(suffix))

    def write(self, name: str, fill: Callable[[IO[bytes]], None]) -> str:
        """Write a file with ``fill`` so that no reader ever sees a part of it.

        Returns:
            Its SHA-256; empty for a file of unfinished work here, which has that in its journal.

        Raises:
            WriteError: there is no room or no way to write; what was there before is unchanged.
        """
        if self.local:
            with atomic_file(Path(self.path(name))) as handle:
                fill(handle)
            path = Path(self.path(name))
            return "" if work_of(path) else sha256_of(path)
        try:
            return self._write_remote(self.path(name), fill)
        except OSError as error:
            raise unwritten(self.path(name), error) from error

    def _write_remote(self, path: str, fill: Callable[[IO[bytes]], None]) -> str:
        # A remote file object sends what it has when an error closes it; a whole file is put.
        with tempfile.NamedTemporaryFile() as handle:
            fill(handle)
            handle.flush()
            self._files.put_file(handle.name, path)
            return sha256_of(Path(handle.name))

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        handle: IO[bytes] = self._files.open(self.path(name), "rb")
        return handle

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._files.rm_file(self.path(name))

    def sweep(self) -> None:
        """Remove what killed writers left behind."""
        if self.local:
            sweep(Path(self._root))

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON whole or not at all."""
        data = json_bytes(value)
        self.write(name, lambda handle: _put(handle, data))

    def read_json(self, name: str) -> Any:
        """Read JSON."""
        with self.open(name) as handle:
            return json.loads(handle.read())


def _put(handle: IO[bytes], data: bytes) -> None:
    handle.write(data)
