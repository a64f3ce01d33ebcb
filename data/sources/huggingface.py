"""Hugging Face data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Self

from data.faults import Tolerance
from data.io.identity import content_digest
from data.sources.base import (
    Bookmarks,
    Pair,
    Rejected,
    SourceError,
    SourceSettings,
    guarded,
    printable,
    storable,
    wanted_of,
)
from data.sources.files import limited, sliced
from data.sources.opening import LARGEST_FILE, read_below

# Of ``datasets``: files are lists of rows, and each can be read without the others.
_ONE_BY_ONE = {"csv", "json", "parquet", "arrow"}


@dataclass(frozen=True)
class HuggingFaceDataset:
    """A Hugging Face data set or a folder of files, streamed through ``datasets``.

    A file of a folder that cannot be read on is a row ``damaged_list``; the rows before the damage
    count, and the next file is read.

    Attributes:
        name: a hub name such as ``google-research-datasets/conceptual_captions``, or a folder.
        columns: ``caption`` and ``image`` or ``url`` -> the column that holds it.
        splits_of: our split -> theirs, with an optional ``[from:to]``.
        revision: the commit of a hub data set, which is part of the identity.
    """

    name: str
    columns: Mapping[str, str]
    splits_of: Mapping[str, str]
    revision: str = "main"
    limit: int | None = None

    @classmethod
    def of(cls, settings: SourceSettings) -> Self:
        """The source of a recipe."""
        return cls(
            settings.dataset, settings.columns, settings.paths, settings.revision, settings.limit
        )

    @property
    def remote(self) -> bool:
        """Whether the data set holds addresses only."""
        return "url" in self.columns

    def identity(self) -> str:
        """Digest of what a folder holds, or of the hub name and the commit."""
        about: Any = [self.name, self.revision]
        if Path(self.name).exists():
            about = content_digest(Path(self.name))
        described = [about, dict(self.columns), dict(self.splits_of), self.limit]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def splits(self) -> list[str]:
        """Our names of the splits."""
        return list(self.splits_of)

    def pairs(self, split: str, bookmarks: Bookmarks | None = None) -> Iterator[Pair | Rejected]:
        """Stream the rows of a split.

        Raises:
            SourceError: a column is missing, or neither an image nor a URL column is named.
        """
        if ("image" in self.columns) == ("url" in self.columns) or "caption" not in self.columns:
            raise SourceError(
                f"download.columns is {dict(self.columns)}; name caption, and image or url"
            )
        start, stop = sliced(self.splits_of[split])[1]
        rows = islice(self._rows(split), start, limited(start, stop, self.limit))
        return wanted_of(rows, bookmarks)

    def _rows(self, split: str) -> Iterator[Pair | Rejected]:
        import datasets

        faults, number = Tolerance("rows"), 0
        for place, opened in self._streams(split):
            rows = self._checked(place, opened)
            while True:
                key = f"{split}-{number:09d}"
                try:
                    row = next(rows)
                except StopIteration:
                    break
                except SourceError:
                    if number == 0:
                        raise
                    yield Rejected(key, "missing_column", place)
                    number += 1
                    break
                except (ValueError, OSError, EOFError, datasets.exceptions.DatasetsError) as error:
                    if not Path(self.name).is_dir():
                        raise  # the network's fault, perhaps, and gone with the next try
                    yield Rejected(key, "damaged_list", f"{place}: {error}")
                    number += 1
                    break
                where = f"{place} row {number}"
                yield guarded(partial(self._pair, key, where, row), key, where, faults)
                number += 1

    def _checked(self, place: str, opened: Callable[[], Any]) -> Iterator[Mapping[str, Any]]:
        """The rows of a stream that has the columns."""
        import datasets

        try:
            stream = opened()
        except StopIteration:  # what ``datasets`` says of an empty JSON file
            return
        known = set(stream.features or {})
        missing = sorted(set(self.columns.values()) - known) if known else []
        if missing:
            raise SourceError(f"{place} has no column {missing}; it has {sorted(known)}")
        image = self.columns.get("image")
        if image is not None and known:
            stream = stream.cast_column(image, datasets.Image(decode=False))
        for row in stream:
            if not known and (missing := sorted(set(self.columns.values()) - set(row))):
                raise SourceError(f"{place} has no column {missing}; it has {sorted(row)}")
            yield row

    def _streams(self, split: str) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Streams that can fail one by one, each with its place."""
        import datasets

        load = partial(datasets.load_dataset, streaming=True)
        theirs, _ = sliced(self.splits_of[split])
        if Path(self.name).is_dir():
            builder = datasets.load_dataset_builder(self.name)
            kind = type(builder).__module__.split(".")[-2]
            files = dict(builder.config.data_files or {}).get(theirs, [])
            if kind in _ONE_BY_ONE and files:
                for file in files:
                    yield str(file), partial(load, kind, data_files={theirs: [file]}, split=theirs)
                return
        revision = None if Path(self.name).is_dir() else self.revision
        stream = load(self.name, split=theirs, revision=revision)
        for index in range(stream.num_shards):
            yield self.name, partial(stream.shard, stream.num_shards, index)

    def _pair(self, key: str, place: str, row: Mapping[str, Any]) -> Pair | Rejected:
        caption = row[self.columns["caption"]]
        if not isinstance(caption, str):
            return Rejected(key, "no_caption", place)
        if not storable(caption):
            return Rejected(key, "bad_text", place)
        if "url" in self.columns:
            url = printable(str(row[self.columns["url"]] or ""))
            return Pair(key, caption, url, "huggingface", None)
        found, origin = self._image(row[self.columns["image"]] or {})
        if isinstance(found, str):
            return Rejected(key, found, f"{place}: {origin}", caption)
        return Pair(key, caption, origin or place, "huggingface", found)

    def _image(self, image: Mapping[str, Any]) -> tuple[bytes | str, str]:
        """The bytes of an image, or the reason for which there are none, and its path or ""."""
        data, path = image.get("bytes"), printable(image.get("path") or "")
        if not data and path and Path(self.name).is_dir():
            return read_below(Path(self.name), image["path"]), path
        if not data:
            return "no_image", path
        return (data if len(data) <= LARGEST_FILE else "too_large"), path
