import pytest
import torch
import torch.nn.functional as F

from gill.backbones.embedded.codes import TruthCodes, TruthSizes, swapped_groups
from gill.backbones.embedded.row_denoiser import RowDenoiser, one_row_each, read_through
from gill.backbones.testing import micro_models

CODES = TruthCodes(TruthSizes(objects=21, numbers=3, sizes=4, arrangements=13, grounds=18))
DENOISER = RowDenoiser(CODES)


@pytest.fixture
def truth():
    torch.manual_seed(0)
    bounds = [21, 3, 4] * 3 + [13, 18]
    return torch.stack([torch.randint(0, b, (64,)) for b in bounds], dim=1)


def test_rows_of_the_code_stay_what_they_are(truth):
    torch.testing.assert_close(DENOISER(CODES(truth)), CODES(truth), atol=2e-3, rtol=0)
    truth[:, 3:9] = truth[:, 10:] = -1  # what is not said stays unsaid
    torch.testing.assert_close(DENOISER(CODES(truth)), CODES(truth), atol=2e-2, rtol=0)
    empty = CODES.empty()[None]
    torch.testing.assert_close(DENOISER(empty), empty, atol=2e-2, rtol=0)


def test_a_little_of_every_class_is_taken_away(truth):
    rows = CODES(truth)
    stray = torch.einsum("ij,jlw->ilw", torch.randn(64, 64) / 8, rows - rows.mean(0))
    noisy = rows.mean(0) + 0.6 * (rows - rows.mean(0)) + 0.4 * stray
    found = DENOISER(noisy)
    assert float((found - rows).square().mean()) < 0.1 * float((noisy - rows).square().mean())


def test_of_two_kinds_in_both_rows_each_gets_one():
    truth = torch.tensor([[3, 1, 2, 5, 1, 2, 0, -1, -1, 4, 6]])
    rows, swapped = CODES(truth), CODES(swapped_groups(truth))
    for share, wins in ((0.55, rows), (0.45, swapped)):
        found = DENOISER(share * rows + (1 - share) * swapped)
        torch.testing.assert_close(found[:, :2], wins[:, :2], atol=0.3, rtol=0)
    # Both rows have more of the same kind: the row that has most of it keeps it.
    found = DENOISER(rows + 0.3 * F.pad(CODES.objects[[3]], (0, 0, 1, 3)))
    torch.testing.assert_close(found[:, :2], rows[:, :2], atol=0.3, rtol=0)


def test_nothing_may_have_many_rows_and_a_kind_one():
    scores = torch.zeros(1, 3, 4)
    scores[0, :, 1] = 5.0
    shares = one_row_each(scores).softmax(-1)
    assert shares[0, :, 1].min() > 0.9
    scores[0, :, 1], scores[0, :, 3] = 0.0, 5.0
    assert one_row_each(scores).softmax(-1)[0, :, 3].sum() < 1.05


def test_half_precision_around_it_changes_nothing(truth):
    rows = CODES(truth).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = DENOISER(rows)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, DENOISER(rows.float()).bfloat16())


def test_a_unet_reads_its_rows_through_it():
    torch.manual_seed(0)
    unet = micro_models.unet(CODES.width).eval()
    latents, rows = torch.randn(2, 4, 8, 8), torch.randn(2, 5, CODES.width)
    with torch.no_grad():
        plain = unet(latents, 3, DENOISER(rows)).sample
        kept = set(unet.state_dict())
        through = read_through(unet, CODES)(latents, 3, rows).sample
    torch.testing.assert_close(through, plain)
    assert set(unet.state_dict()) == kept  # nothing to be shipped or trained
