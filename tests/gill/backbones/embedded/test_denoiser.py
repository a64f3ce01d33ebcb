"""The loss of the scene denoiser, its average and its sampling."""

import pytest
import torch

from gill.backbones.embedded import denoiser
from gill.backbones.embedded.denoiser import (
    SHRUNK,
    STRAY,
    UNSURE_OF_CAPTION,
    UNSURE_OF_ORDER,
    MovingAverage,
    sample_latents,
    unsure,
    velocity_loss,
)
from gill.backbones.image_generator import new_sampler, new_scheduler
from gill.backbones.testing import micro_models


def test_moving_average_is_short_at_first():
    module, copy = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    average = MovingAverage(module, copy)
    expected = module.weight.detach().clone()
    for n in range(1, 6):
        torch.nn.init.constant_(module.weight, float(n))
        average.update(module)
        decay = (1 + n) / (10 + n)
        expected = decay * expected + (1 - decay) * n
    assert torch.allclose(average.average.weight, expected, atol=1e-6)


class Perfect:
    """Denoises with the clean latents at hand."""

    def __init__(self, scheduler, latents, error=0.0):
        self.scheduler, self.latents, self.error = scheduler, latents, error

    def __call__(self, noised, times, prompt):
        a = self.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
        noise = (noised - a.sqrt() * self.latents) / (1 - a).sqrt()
        velocity = self.scheduler.get_velocity(self.latents, noise, times)
        return type("Out", (), {"sample": velocity + self.error})


def test_velocity_loss_is_nought_for_the_true_velocity_and_weighted_otherwise():
    torch.manual_seed(0)
    scheduler = new_scheduler()
    latents, rows = torch.randn(64, 4, 8, 8), torch.randn(64, 5, 8)
    loss = velocity_loss(Perfect(scheduler, latents), scheduler, latents, rows, rows[0])
    assert float(loss) < 1e-3
    wrong = velocity_loss(Perfect(scheduler, latents, 1.0), scheduler, latents, rows, rows[0])
    assert 0.5 < float(wrong) < 1.0  # the weight is 1 where noise is strong, less where it is weak


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return micro_models.unet(16).eval()


def test_an_image_depends_on_its_seed_and_rows_not_on_its_batch(unet):
    torch.manual_seed(1)
    rows, empty = torch.randn(3, 5, 16), torch.randn(5, 16)
    together = sample_latents(unet, new_sampler(), rows, empty, 7, 3, 2.0)
    assert together.shape == (3, 4, 8, 8)
    alone = sample_latents(unet, new_sampler(), rows[1:2], empty, 8, 3, 2.0)
    torch.testing.assert_close(alone[0], together[1], atol=1e-4, rtol=1e-3)
    other = sample_latents(unet, new_sampler(), rows[1:2], empty, 9, 3, 2.0)
    assert not torch.allclose(alone, other, atol=1e-2)


def test_guidance_of_one_asks_nothing_of_the_empty_caption(unet):
    torch.manual_seed(1)
    rows, empties = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    for guidance, equal in ((1.0, True), (4.0, False)):
        one, other = (
            sample_latents(unet, new_sampler(), rows, empty, 0, 2, guidance) for empty in empties
        )
        assert torch.allclose(one, other, atol=1e-4) == equal


def test_rows_of_a_mapper_that_is_not_sure_are_mixtures_of_known_shares(monkeypatch):
    monkeypatch.setattr(denoiser, "UNSURE_OF_CAPTION", 0.0)
    torch.manual_seed(0)
    count = 20_000
    rows = torch.zeros(count, 1, 2)
    rows[:, 0, 0] = 1.0  # one order along the first axis, the other along the second
    swapped = rows.flip(-1)
    mixed = unsure(rows, swapped)[:, 0]
    torch.testing.assert_close(mixed.sum(1), torch.ones(count))
    share = mixed[:, 0][mixed[:, 1] > 0]
    assert len(share) / count == pytest.approx(UNSURE_OF_ORDER, abs=0.01)
    assert float(share.mean()) == pytest.approx(2 / 3, abs=0.01)  # of the density 2w
    # Of mixtures with the other share, as many are of the other order as their share says.
    like = (share > 0.7).sum() / ((share > 0.7).sum() + (share < 0.3).sum())
    assert float(like) == pytest.approx((1 - 0.49) / (1 - 0.49 + 0.09), abs=0.02)


def test_a_caption_that_a_mapper_is_not_sure_of_is_drawn_to_the_mean_and_strays_within_the_rows():
    torch.manual_seed(0)
    count = 2000
    rows = torch.zeros(count, 1, 4)
    rows[:, 0, :2] = torch.randn(count, 2) * torch.tensor([3.0, 1.0])
    rows[:, 0, 2] = 5.0  # the same in all
    found = unsure(rows, rows)
    moved = (found - rows).abs().amax((1, 2)) > 1e-3
    assert float(moved.float().mean()) == pytest.approx(UNSURE_OF_CAPTION, abs=0.03)
    # Nothing strays in directions that rows do not have, and more in those that they have.
    torch.testing.assert_close(found[..., 2:], rows[..., 2:], atol=1e-4, rtol=0)
    x, y = rows[moved, 0, :2], found[moved, 0, :2]
    kept = (x * y).mean(0) / x.square().mean(0)
    torch.testing.assert_close(kept, torch.full((2,), 1 - SHRUNK / 2), atol=0.06, rtol=0)
    spread = (y - kept * x).square().mean(0) / x.var(0)
    expected = STRAY**2 / 3 + SHRUNK**2 / 12  # of the noise, and of how much is kept
    torch.testing.assert_close(spread, torch.full((2,), expected), atol=0.08, rtol=0)
