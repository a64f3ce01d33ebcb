"""Hugging Face data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

from data.io.identity import content_digest
from data.sources.base import Pair, Rejected, SourceError, SourceSettings, storable
from data.sources.files import limited, sliced


@dataclass(frozen=True)
class HuggingFaceDataset:
    """A Hugging Face data set or a folder of files, streamed through ``datasets``.

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

    def pairs(self, split: str) -> Iterator[Pair | Rejected]:
        """Stream the rows of a split.

        Raises:
            SourceError: a column is missing, or neither an image nor a URL column is named.
        """
        start, stop = sliced(self.splits_of[split])[1]
        stream = self._stream(split)
        end = limited(start, stop, self.limit)
        rows = stream.skip(start) if start else stream
        for number, row in enumerate(islice(rows, None if end is None else end - start), start):
            yield self._pair(f"{split}-{number:09d}", f"{self.name} row {number}", row)

    def _stream(self, split: str) -> Any:
        import datasets

        theirs, _ = sliced(self.splits_of[split])
        revision = None if Path(self.name).is_dir() else self.revision
        stream = datasets.load_dataset(self.name, split=theirs, streaming=True, revision=revision)
        image = self.columns.get("image")
        if (image is None) == (self.columns.get("url") is None):
            raise SourceError(f"download.columns is {dict(self.columns)}; name image or url")
        known = set(stream.features or {})
        missing = sorted(set(self.columns.values()) - known) if known else []
        if missing:
            raise SourceError(f"{self.name} has no column {missing}; it has {sorted(known)}")
        if image is not None:
            stream = stream.cast_column(image, datasets.Image(decode=False))
        return stream

    def _pair(self, key: str, place: str, row: Mapping[str, Any]) -> Pair | Rejected:
        caption = row[self.columns["caption"]]
        if not isinstance(caption, str):
            return Rejected(key, "no_caption", place)
        if not storable(caption):
            return Rejected(key, "bad_text", place)
        if "url" in self.columns:
            return Pair(key, caption, str(row[self.columns["url"]] or ""), "huggingface", None)
        image = row[self.columns["image"]]
        if not image or not image.get("bytes"):
            return Rejected(key, "no_image", place, caption)
        return Pair(key, caption, image.get("path") or place, "huggingface", image["bytes"])
