"""Painted scenes with captions and their truth, and the drawings that only retrieval can give."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar, Self

import numpy as np
from PIL import Image

from data.io.journal import sha256_of
from data.scenes.captions import caption
from data.scenes.grammar import Split, World
from data.scenes.painter import SHEET, paint
from data.sources.base import Bookmarks, Pair, SourceSettings, wanted_of
from data.sources.embedded_pack import EmbeddedPack

RECIPE = 1  # raise it when another grammar, wording or painter makes other scenes
VALIDATION, TEST = 10, 5  # so many times fewer scenes than for training
DRAWINGS = 3  # every third of the pack's
SCENES_BETWEEN = 4  # scenes before each drawing, so that the first rows of a split are a mixture


@dataclass(frozen=True)
class ScenesAndDrawings:
    """The embedded world (``data/scenes``) beside the embedded pack (``data/embedded``).

    Half of the scenes of the test split are compositions that training never shows; ``source`` of
    their rows is ``new_scenes``, of the others ``scenes``, and the style of a drawing.

    Attributes:
        scenes: painted for training; a tenth as many for validation, a fifth for the test.
        limit: at most this many rows of each split, or None for all.
    """

    scenes: int
    limit: int | None = None
    world: World = field(default_factory=World)
    remote: ClassVar[bool] = False

    @classmethod
    def of(cls, settings: SourceSettings) -> Self:
        """The source of a recipe."""
        return cls(settings.scenes, settings.limit)

    def identity(self) -> str:
        """Digest of the sprites, the grammar's version and the numbers of rows."""
        named = [
            RECIPE,
            DRAWINGS,
            SCENES_BETWEEN,
            self.scenes,
            self.limit,
            self.world.objects,
            self.world.shares,
        ]
        parts = [sha256_of(SHEET), EmbeddedPack().identity(), json.dumps(named)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def splits(self) -> list[str]:
        """Train, validation and test."""
        return ["train", "validation", "test"]

    def pairs(self, split: str, bookmarks: Bookmarks | None = None) -> Iterator[Pair]:
        """Stream the rows of a split: some scenes, a drawing, and so on until both end."""
        return wanted_of(islice(self._mixed(split), self.limit), bookmarks)

    def _mixed(self, split: str) -> Iterator[Pair]:
        scenes = self._scenes(split)
        drawings = islice(EmbeddedPack().pairs(split), 0, None, DRAWINGS)
        while rows := [*islice(scenes, SCENES_BETWEEN), *islice(drawings, 1)]:
            yield from rows

    def _scenes(self, split: str) -> Iterator[Pair]:
        if split == "train":
            numbered: Iterator[tuple[Split, int]] = (("train", i) for i in range(self.scenes))
        elif split == "validation":
            numbered = (("validation", i) for i in range(self.scenes // VALIDATION))
        else:
            half = range(self.scenes // TEST // 2)
            numbered = ((of, i) for i in half for of in ("test", "test_new"))
        return (self.pair(of, index) for of, index in numbered)

    def pair(self, split: Split, index: int) -> Pair:
        """The scene of an index, painted and stored as PNG."""
        scene = self.world.scene(split, index)
        return Pair(
            key=f"scene-{split}-{index:07d}",
            caption=caption(scene, split, index),
            origin=f"data/scenes: {split} {index}",
            source="new_scenes" if split == "test_new" else "scenes",
            image=_png(paint(scene)),
            truth=json.dumps(scene.to_dict(), separators=(",", ":")),
        )


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=6)
    return out.getvalue()
