"""The losses against values computed by hand, and the fast head against the plain one."""

import math

import pytest
import torch
from torch import nn

from gill.losses import contrastive_loss, frozen_head_loss, generation_loss, token_loss


def test_token_loss_by_hand():
    # Three equal logits in all (two words, one [IMG]): every label costs ln 3.
    loss = token_loss(torch.zeros(2, 2), torch.zeros(2, 1), torch.tensor([0, 2]))
    assert float(loss) == pytest.approx(math.log(3))


def test_token_loss_counts_img_tokens_in_the_sum():
    # exp(0) + exp(0) + exp(ln 2) = 4, label is the [IMG] token: -ln(2 / 4).
    loss = token_loss(torch.zeros(1, 2), torch.tensor([[math.log(2)]]), torch.tensor([2]))
    assert float(loss) == pytest.approx(math.log(2))


def test_contrastive_loss_by_hand():
    text = torch.eye(2)
    # Rows are (s, 0): -ln(e^s / (e^s + 1)) both ways.
    loss = contrastive_loss(text, torch.eye(2), torch.tensor(3.0))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-3)), abs=1e-6)
    swapped = contrastive_loss(text, torch.eye(2).flip(0), torch.tensor(3.0))
    assert float(swapped) == pytest.approx(3 + math.log(1 + math.exp(-3)), abs=1e-6)


def test_generation_loss_by_hand():
    predicted = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    target = torch.zeros(1, 2, 2)
    assert float(generation_loss(predicted, target, "norm")) == pytest.approx(2.5)
    assert float(generation_loss(predicted, target, "squared")) == pytest.approx(12.5)
    with pytest.raises(ValueError, match="'cosine'"):
        generation_loss(predicted, target, "cosine")


@pytest.mark.parametrize("bias", [True, False])
def test_frozen_head_equals_plain_loss_and_gradients(bias):
    torch.manual_seed(0)
    head = nn.Linear(16, 50, bias=bias).requires_grad_(False)
    hidden = torch.randn(37, 16, requires_grad=True)
    rows = torch.randn(3, 16, requires_grad=True)
    labels = torch.randint(0, 53, (37,))
    labels[:3] = torch.tensor([50, 52, 49])
    plain = token_loss(head(hidden), hidden @ rows.T, labels)
    fast = frozen_head_loss(hidden, hidden @ rows.T, head, labels, chunk=8)
    assert plain.item() == pytest.approx(fast.item(), abs=1e-5)
    for a, b in zip(
        torch.autograd.grad(plain, (hidden, rows)),
        torch.autograd.grad(fast, (hidden, rows)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_contrastive_loss_goes_both_ways_by_hand():
    """An asymmetric matrix of scores: the mean over rows and the mean over columns differ."""
    scores = torch.zeros(3, 3)
    scores[0] = torch.tensor([0.0, math.log(2), math.log(3)])
    loss = contrastive_loss(scores, torch.eye(3), torch.tensor(1.0))
    rows = math.log(1 + 2 + 3) + 2 * math.log(1 + 1 + 1)
    columns = math.log(1 + 1 + 1) + math.log(2 + 1 + 1) + math.log(3 + 1 + 1)
    assert float(loss) == pytest.approx((rows / 3 + columns / 3) / 2)
