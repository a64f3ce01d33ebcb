"""The scene reader: names what an image shows, the objective measure of the embedded world.

Every cell of 8 x 8 pixels says which kind of object covers it, of which size, and where in the
object it lies; cells that agree make an object. It is trained on true scenes and on the
autoencoder's, and never used to train a generator.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gill.backbones.embedded.autoencoder import ResidualBlock

LEAST_VOTES = 0.4  # share of an object's cells that must agree on it


@dataclass(frozen=True)
class ReaderShape:
    """Classes and widths.

    Attributes:
        objects: kinds, without "none". sizes: their edges in cells. grounds: kinds.
        middle: width at 16 x 16. wide: at 8 x 8. blocks: residual blocks at 8 x 8.
    """

    objects: int
    sizes: tuple[int, ...]
    grounds: int
    middle: int = 64
    wide: int = 128
    blocks: int = 3


@dataclass(frozen=True)
class Found:
    """One object in an image.

    Attributes:
        kind: number of the object, from 0. size: number of the size. x, y: its centre in cells.
        share: of its cells that agree.
    """

    kind: int
    size: int
    x: float
    y: float
    share: float


@dataclass(frozen=True)
class Reading:
    """What the reader sees in one image."""

    objects: tuple[Found, ...]
    ground: int


class SceneReader(nn.Module):
    """Logits of object, size and offset for each cell, and of the ground for the image."""

    def __init__(self, shape: ReaderShape) -> None:
        super().__init__()
        self.shape = s = shape
        self.largest = max(s.sizes)
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, s.middle, 3, padding=1),
            ResidualBlock(s.middle),
            nn.SiLU(),
            nn.Conv2d(s.middle, s.wide, 4, stride=2, padding=1),
            *(ResidualBlock(s.wide) for _ in range(s.blocks)),
            nn.GroupNorm(8, s.wide),
            nn.SiLU(),
        )
        self.parts = [s.objects + 1, len(s.sizes), self.largest, self.largest]
        self.cells = nn.Conv2d(s.wide, sum(self.parts), 1)
        self.ground = nn.Linear(s.wide, s.grounds)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logits of images ``(n, 3, 64, 64)`` in [-1, 1].

        Returns:
            For object (0: none), size, and column and row inside the object ``(n, classes, 8, 8)``;
            and the ground's ``(n, grounds)``.
        """
        features = self.stem(images)
        cells = self.cells(features).float().split(self.parts, dim=1)
        return list(cells), self.ground(features.mean((2, 3))).float()

    @torch.no_grad()
    def read(self, images: Tensor, batch_size: int = 128) -> list[Reading]:
        """Read images ``(n, 3, 64, 64)`` in [-1, 1]."""
        found = []
        for part in images.split(batch_size):
            cells, ground = self(part)
            best = torch.stack([logits.argmax(1) for logits in cells], dim=1).tolist()
            for maps, name in zip(best, ground.argmax(1).tolist(), strict=True):
                found.append(Reading(tuple(_objects(maps, self.shape.sizes)), name))
        return found


def _objects(maps: list[list[list[int]]], sizes: tuple[int, ...]) -> list[Found]:
    """Objects on which enough cells agree; a cell counts for the best of them only."""
    kinds, edges, columns, rows = maps
    votes: dict[tuple[int, int, int, int], int] = defaultdict(int)
    for y, line in enumerate(kinds):
        for x, kind in enumerate(line):
            if kind:
                votes[kind - 1, edges[y][x], x - columns[y][x], y - rows[y][x]] += 1
    shares = sorted(((n / sizes[k[1]] ** 2, k) for k, n in votes.items()), reverse=True)
    taken: set[tuple[int, int]] = set()
    found = []
    for share, (kind, size, x, y) in shares:
        if share < LEAST_VOTES:
            break
        edge = sizes[size]
        cells = {(x + i, y + j) for i in range(edge) for j in range(edge)}
        if 3 * len(cells & taken) > len(cells):
            continue
        taken |= cells
        found.append(Found(kind, size, x + edge / 2, y + edge / 2, share))
    return found


def reader_loss(
    cells: list[Tensor], ground: Tensor, true_cells: Tensor, true_ground: Tensor
) -> Tensor:
    """Mean cross-entropy of cells and ground.

    Args:
        true_cells: ``(n, 4, 8, 8)``; size and offsets are -1 where there is no object.
    """
    losses = [
        F.cross_entropy(logits, true_cells[:, i], ignore_index=-1) for i, logits in enumerate(cells)
    ]
    return torch.stack([*losses, F.cross_entropy(ground, true_ground)]).sum()
