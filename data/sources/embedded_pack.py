"""The pack that ships with the project."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import pyarrow.parquet as pq

from data.io.journal import sha256_of
from data.sources.base import Bookmarks, Pair, SourceError, SourceSettings, wanted_of

PACK = Path(__file__).parents[1] / "embedded"


@dataclass(frozen=True)
class EmbeddedPack:
    """The pack that ships with the project (``data/embedded``): drawn images and captions.

    Attributes:
        limit: at most this many pairs of each split (the tiny recipe), or None for all.
        folder: where ``pairs.parquet`` and ``pack.json`` lie.
    """

    limit: int | None = None
    folder: Path = PACK
    remote: ClassVar[bool] = False

    @classmethod
    def of(cls, settings: SourceSettings) -> Self:
        """The source of a recipe."""
        return cls(settings.limit)

    def identity(self) -> str:
        """Digest of the pack and the limit."""
        return hashlib.sha256(f"{self._expected()} {self.limit}".encode()).hexdigest()

    def splits(self) -> list[str]:
        """Train, validation and test: no title is in two of them."""
        return ["train", "validation", "test"]

    def pairs(self, split: str, bookmarks: Bookmarks | None = None) -> Iterator[Pair]:
        """Stream the pairs of a split after checking the pack's checksum.

        Raises:
            SourceError: the pack is missing or differs from the checksum that is committed with it.
        """
        return wanted_of(self._pairs(split), bookmarks)

    def _pairs(self, split: str) -> Iterator[Pair]:
        path = self.folder / "pairs.parquet"
        if not path.exists():
            raise SourceError(f"the embedded pack is missing: {path}; restore it with git checkout")
        found = sha256_of(path)
        if found != self._expected():
            raise SourceError(
                f"{path} has the checksum {found[:12]}, not {self._expected()[:12]} of pack.json; "
                "restore it with git checkout"
            )
        given = 0
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                if row["split"] != split:
                    continue
                if self.limit is not None and given >= self.limit:
                    return
                given += 1
                yield Pair(
                    row["key"],
                    row["caption"],
                    row["origin"],
                    row["style"],
                    row["image"],
                    row["title"],
                )

    def _expected(self) -> str:
        return str(json.loads((self.folder / "pack.json").read_text())["sha256"])
