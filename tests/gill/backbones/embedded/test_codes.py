import pytest
import torch

from gill.backbones.embedded.codes import (
    TruthCodes,
    TruthSizes,
    code_accuracy,
    code_loss,
    swapped_groups,
)

SIZES = TruthSizes(objects=21, numbers=3, sizes=4, arrangements=13, grounds=18, width=128)
CODES = TruthCodes(SIZES)


def truths(count):
    torch.manual_seed(0)
    bounds = [21, 3, 4] * 3 + [13, 18]
    return torch.stack([torch.randint(0, b, (count,)) for b in bounds], dim=1)


def test_rows_are_normalised_and_made_of_their_classes():
    truth = truths(6)
    rows = CODES(truth)
    assert rows.shape == (6, 5, 128)
    assert rows.mean(-1).abs().max() < 1e-5
    assert (rows.std(-1, unbiased=False) - 1).abs().max() < 1e-3
    o, n, s = truth[2, 3:6]
    plain = CODES.objects[o] + CODES.numbers[n] + CODES.sizes[s] + CODES.tags[1]
    expected = (plain - plain.mean()) / plain.std(unbiased=False)
    assert torch.allclose(rows[2, 1], expected, atol=1e-4)
    assert torch.equal(rows, TruthCodes(SIZES)(truth))  # fixed by its seed


def test_what_is_not_said_adds_nothing():
    truth = torch.full((1, 11), -1)
    assert torch.equal(CODES(truth)[0], CODES.empty())


def test_the_true_rows_are_read_rightly_and_other_rows_are_not():
    truth = truths(300)
    rows = CODES(truth)
    assert min(code_accuracy(CODES, rows, truth)) == 1.0
    noisy = rows + 0.5 * torch.randn_like(rows)
    assert min(code_accuracy(CODES, noisy, truth)) > 0.95
    shuffled = code_accuracy(CODES, rows.roll(1, 0), truth)
    assert max(shuffled) < 0.6


def test_loss_is_least_at_the_true_rows():
    truth = truths(50)
    distance, named = code_loss(CODES, CODES(truth), truth)
    assert float(distance) == 0.0
    worse = code_loss(CODES, CODES(truth.roll(1, 0)), truth)
    assert worse[0] > 0.5
    assert worse[1] > named


def test_a_column_that_no_caption_says_does_not_break_the_loss():
    truth = truths(4)
    truth[:, 6:9] = torch.tensor([0, -1, -1])
    assert torch.isfinite(code_loss(CODES, CODES(truth), truth)[1])


@pytest.mark.parametrize("column", range(11))
def test_every_factor_changes_its_own_row_only(column):
    truth = truths(1)
    other = truth.clone()
    other[0, column] = (other[0, column] + 1) % 3
    changed = (CODES(truth) != CODES(other)).any(-1)[0]
    row = 3 if column == 9 else 4 if column == 10 else column // 3
    assert changed.nonzero().flatten().tolist() == [row]


def test_swapped_groups_are_another_order_of_the_same_two():
    truth = truths(60)
    truth[:, (0, 3)] = truth[:, (0, 3)].clamp(min=1)
    truth[:20, 3:6] = torch.tensor([0, -1, -1])  # one group
    other = swapped_groups(truth)
    assert torch.equal(other[:20], truth[:20])
    assert torch.equal(other[20:, :3], truth[20:, 3:6])
    assert torch.equal(other[20:, 3:6], truth[20:, :3])
    assert torch.equal(other[:, 6:], truth[:, 6:])
    assert torch.equal(swapped_groups(other), truth)
