"""Teaches the text layers what a caption says before the UNet asks: slots with fixed roles.

The first three rows stand for the groups of things in the order of their places (from left to
right, or from top to bottom), the fourth for the arrangement, the fifth for the ground. Small
linear heads read the truth from them; the heads are thrown away afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 3


@dataclass(frozen=True)
class TruthSizes:
    """Number of classes of each factor; class 0 of a group's object means that there is none."""

    objects: int
    numbers: int
    sizes: int
    arrangements: int
    grounds: int

    @property
    def columns(self) -> list[tuple[int, int]]:
        """Slot and number of classes of each column of the truth."""
        group = (self.objects, self.numbers, self.sizes)
        first = [(slot, classes) for slot in range(GROUPS) for classes in group]
        return [*first, (GROUPS, self.arrangements), (GROUPS + 1, self.grounds)]


class ParsingHeads(nn.Module):
    """Reads each factor from its slot."""

    def __init__(self, width: int, sizes: TruthSizes) -> None:
        super().__init__()
        self.columns = sizes.columns
        self.heads = nn.ModuleList(nn.Linear(width, classes) for _, classes in self.columns)

    def forward(self, rows: Tensor) -> list[Tensor]:
        """Logits of each column, each ``(n, classes)``."""
        return [h(rows[:, slot]) for h, (slot, _) in zip(self.heads, self.columns, strict=True)]


def parsing_loss(logits: list[Tensor], truth: Tensor) -> Tensor:
    """Mean cross-entropy over the columns of ``truth`` ``(n, columns)``; -1 is not said."""
    losses = []
    for column, x in enumerate(logits):
        said = truth[:, column]
        summed = F.cross_entropy(x.float(), said, ignore_index=-1, reduction="sum")
        losses.append(summed / (said >= 0).sum().clamp(min=1))
    return torch.stack(losses).mean()


def parsing_accuracy(logits: list[Tensor], truth: Tensor) -> list[float]:
    """Share of right answers of each column, where there is one."""
    found = []
    for column, x in enumerate(logits):
        said = truth[:, column] >= 0
        found.append(float((x.argmax(-1) == truth[:, column])[said].float().mean()))
    return found
