"""The UNet of the embedded generator and its loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CAPTION_DROPOUT = 0.1
ROW_DROPOUT = 0.04  # of each row by itself: captions that do not say all are drawn too
WEIGHT_CAP = 5.0
CONDITION_NOISE = 0.15
UNSURE_OF_ORDER, UNSURE_OF_CAPTION = 0.4, 0.6  # shares of the images
SHRUNK, STRAY = 0.7, 1.0  # how far rows go to the mean, and deviations of the noise, at most


class MovingAverage(nn.Module):
    """Exponential moving average of a module's weights: short at first, then longer.

    Attributes:
        average: a module with the averaged weights.
    """

    def __init__(self, module: nn.Module, average: nn.Module, longest: float = 0.9995) -> None:
        super().__init__()
        self.average, self.longest = average, longest
        self.average.load_state_dict(module.state_dict())
        self.average.requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.updates: Tensor

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the weights of ``module``."""
        self.updates += 1
        done = float(self.updates)
        decay = min(self.longest, (1 + done) / (10 + done))
        ours: list[Tensor] = list(self.average.parameters())
        theirs: list[Tensor] = list(module.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - decay)


def unsure(rows: Tensor, swapped: Tensor) -> Tensor:
    """Rows as they come from a mapper that is not sure what the caption says.

    What minimises a squared distance to the rows is their mean over all that may be true. For some
    images, rows are mixed with those of another order of their groups; the share of the true rows
    has density 2w, so that ``w`` of the images with a mixture ``w`` to ``1 - w`` of two orders have
    the first of them, and the UNet learns what a mixture means. For some, each row is drawn
    towards the mean of the batch and noise of the rows' own covariance is added: what a mapper
    makes is a little of everything that a caption can say, and noise of all directions alike would
    teach the UNet to read rows by their nearest class instead of taking classes apart.

    Args:
        rows, swapped: ``(n, rows, width)``; ``swapped`` equals ``rows`` where there is one order.
    """
    count, length = rows.shape[:2]
    share = torch.rand(count, 1, 1).sqrt()
    share = torch.where(torch.rand(count, 1, 1) < UNSURE_OF_ORDER, share, 1.0)
    mixed = share * rows + (1 - share) * swapped
    mean = rows.mean(0)
    likely = 1 - SHRUNK * torch.rand(count, length, 1)
    stray = torch.einsum("ij,jlw->ilw", torch.randn(count, count) / count**0.5, rows - mean)
    hesitant = mean + likely * (mixed - mean) + STRAY * torch.rand(count, 1, 1) * stray
    return torch.where(torch.rand(count, 1, 1) < UNSURE_OF_CAPTION, hesitant, mixed)


def velocity_loss(
    denoise: Any, scheduler: Any, latents: Tensor, rows: Tensor, empty: Tensor
) -> Tensor:
    """Weighted squared error of the predicted velocity (Salimans and Ho 2022).

    The weight is that of an image's own error where noise is strong and is cut off where it is
    weak: what is left there the decoder was trained to bear. Noise on the text rows makes the UNet
    bear a mapper that misses them by a little.

    Args:
        denoise: the UNet, compiled or not.
        latents: ``(n, c, h, w)`` of clean images. rows: ``(n, rows, width)`` of their captions.
        empty: ``(rows, width)`` of "", which replaces a tenth of them for guidance.
    """
    count = len(latents)
    noise = torch.randn_like(latents)
    times = torch.randint(0, scheduler.config.num_train_timesteps, (count,))
    noised = scheduler.add_noise(latents, noise, times)
    target = scheduler.get_velocity(latents, noise, times)
    dropped = torch.rand(count, 1, 1) < CAPTION_DROPOUT
    dropped = dropped | (torch.rand(count, rows.shape[1], 1) < ROW_DROPOUT)
    strength = CONDITION_NOISE * torch.rand(count, 1, 1)
    prompt = torch.where(dropped, empty, rows + strength * torch.randn_like(rows))
    predicted = denoise(noised, times, prompt).sample
    variance = 1 - scheduler.alphas_cumprod[times]
    weight = (WEIGHT_CAP * variance).clamp(max=1.0)
    return (weight * (predicted.float() - target).square().mean((1, 2, 3))).mean()


@torch.no_grad()
def sample_latents(
    unet: Any, sampler: Any, rows: Tensor, empty: Tensor, seed: int, steps: int, guidance: float
) -> Tensor:
    """Latents ``(n, c, edge, edge)`` sampled with classifier-free guidance.

    Args:
        rows: ``(n, rows, width)``. empty: ``(rows, width)``. seed: of the first image; the others
            follow, so that an image does not depend on its batch.
    """
    edge, channels = unet.config.sample_size, unet.config.in_channels
    noise = [
        torch.randn(channels, edge, edge, generator=torch.Generator().manual_seed(seed + i))
        for i in range(len(rows))
    ]
    sampler.set_timesteps(steps)
    latents = torch.stack(noise) * sampler.init_noise_sigma
    both = torch.cat([empty.expand_as(rows), rows])
    for time in sampler.timesteps:
        found = unet(torch.cat([latents, latents]), time, both).sample.float()
        without, with_text = found.chunk(2)
        velocity = without + guidance * (with_text - without)
        latents = sampler.step(velocity, time, latents).prev_sample
    return latents
