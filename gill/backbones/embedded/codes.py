"""The fixed code in which the text encoder and the UNet meet.

What a caption says is a handful of classes: object, number and size of up to three groups, the
arrangement, the ground. Each class has a random vector that is never trained. A group's row is the
sum of its vectors and of a tag that says which row it is; the rows are normalised. A caption that
says nothing has the tags alone, from which guidance steers away. The groups come in the order of
their places, so "the cat is left of the dog" and "the dog is right of the cat" have the same rows.
The UNet is trained on the rows of the truth, at no cost for text; the text layers are trained to
make these rows from captions. Neither waits for the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 3
LESSER = 0.7  # length of the vectors for number, size and row, relative to the object's
SHARPNESS = 8.0  # of the softmax over cosine-like scores in ``code_loss``


@dataclass(frozen=True)
class TruthSizes:
    """Number of classes of each factor; object 0 stands for "there is none".

    Attributes:
        width: of a row.
    """

    objects: int
    numbers: int
    sizes: int
    arrangements: int
    grounds: int
    width: int = 256


class TruthCodes(nn.Module):
    """Rows ``(n, 5, width)`` of truth columns ``(n, 11)``.

    Columns are object, number and size of each group, then arrangement and ground; -1 is not said.
    """

    def __init__(self, shape: TruthSizes, seed: int = 7) -> None:
        super().__init__()
        self.shape, self.rows, self.width = shape, GROUPS + 2, shape.width
        generator = torch.Generator().manual_seed(seed)

        def table(classes: int, scale: float) -> Tensor:
            return scale * torch.randn(classes, shape.width, generator=generator)

        group = [("objects", shape.objects, 1.0), ("numbers", shape.numbers, LESSER),
                 ("sizes", shape.sizes, LESSER), ("tags", GROUPS + 2, LESSER)]  # fmt: skip
        scene = [("arrangements", shape.arrangements, 1.0), ("grounds", shape.grounds, 1.0)]
        for name, classes, scale in group + scene:
            self.register_buffer(name, table(classes, scale))
        self.objects: Tensor
        self.numbers: Tensor
        self.sizes: Tensor
        self.arrangements: Tensor
        self.grounds: Tensor
        self.tags: Tensor
        names = ["objects", "numbers", "sizes"] * GROUPS + ["arrangements", "grounds"]
        self.columns = [(min(c // 3, GROUPS) + (c == 10), name) for c, name in enumerate(names)]

    def forward(self, truth: Tensor) -> Tensor:
        """Rows of a batch."""
        rows = truth.new_zeros(len(truth), self.rows, self.width, dtype=torch.float32)
        for column, (row, name) in enumerate(self.columns):
            said = truth[:, column]
            rows[:, row] += getattr(self, name)[said.clamp(min=0)] * (said >= 0)[:, None]
        rows += self.tags
        return F.layer_norm(rows, (self.width,))

    def empty(self) -> Tensor:
        """Rows ``(5, width)`` of a caption that says nothing."""
        return F.layer_norm(self.tags, (self.width,))

    def scores(self, rows: Tensor) -> list[Tensor]:
        """How well each class of each column fits rows: logits ``(n, classes)`` of each column."""
        found = []
        for row, name in self.columns:
            table = getattr(self, name)
            unit = table / table.norm(dim=1, keepdim=True)
            found.append(SHARPNESS * rows[:, row].float() @ unit.T / self.width**0.5 * 2)
        return found


def swapped_groups(truth: Tensor) -> Tensor:
    """Truth columns with the first two groups in the other order, where there are two."""
    other = truth.clone()
    two = truth[:, 3] > 0
    other[two, :3], other[two, 3:6] = truth[two, 3:6], truth[two, :3]
    return other


def code_loss(codes: TruthCodes, rows: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance to the true rows, and the mean cross-entropy of the columns."""
    distance = (rows.float() - codes(truth)).square().mean()
    losses = []
    for column, logits in enumerate(codes.scores(rows)):
        said = truth[:, column]
        summed = F.cross_entropy(logits, said, ignore_index=-1, reduction="sum")
        losses.append(summed / (said >= 0).sum().clamp(min=1))
    return distance, torch.stack(losses).mean()


def code_accuracy(codes: TruthCodes, rows: Tensor, truth: Tensor) -> list[float]:
    """Share of columns that the rows name rightly, each over the examples where it is said."""
    found = []
    for column, logits in enumerate(codes.scores(rows)):
        said = truth[:, column] >= 0
        found.append(float((logits.argmax(-1) == truth[:, column])[said].float().mean()))
    return found
