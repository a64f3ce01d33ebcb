"""The autoencoder of scenes: 64 x 64 pixels to 8 x 8 latents, wide where the image is small.

A decoder that works at full resolution with few channels spends most of a processor's time where it
knows least. This one holds its width at 8 x 8 and 16 x 16 and unfolds to pixels in the last layer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DOWN = 8  # pixels of an edge that one latent stands for


@dataclass(frozen=True)
class AutoencoderShape:
    """Widths and depths.

    Attributes:
        channels: of the latents. wide: at 8 x 8. middle: at 16 x 16. encoder_blocks and
            decoder_blocks: residual blocks at 8 x 8; edge_blocks: of the decoder at 16 x 16.
    """

    channels: int = 16
    wide: int = 192
    middle: int = 96
    encoder_blocks: int = 1
    decoder_blocks: int = 3
    edge_blocks: int = 1


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, width, h, w)`` to the same shape."""
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))


class SceneAutoencoder(nn.Module):
    """Encodes and decodes scenes; speaks as diffusers' AutoencoderKL does.

    The encoder's output is normalised over each channel of the training data (a batch normalisation
    without gain), so latents have mean 0 and deviation 1 and need no scaling factor.
    """

    def __init__(self, shape: AutoencoderShape) -> None:
        super().__init__()
        self.shape = shape
        s = shape
        self.config = SimpleNamespace(
            **asdict(s),
            latent_channels=s.channels,
            block_out_channels=(s.wide,) * 4,  # its length says how far an image is reduced
            scaling_factor=1.0,
            shift_factor=None,
            force_upcast=False,
        )
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, s.middle, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(s.middle, s.wide, 4, stride=2, padding=1),
            *(ResidualBlock(s.wide) for _ in range(s.encoder_blocks)),
            nn.SiLU(),
            nn.Conv2d(s.wide, s.channels, 1),
        )
        self.scale = nn.BatchNorm2d(s.channels, affine=False, momentum=0.01)
        self.decoder = nn.Sequential(
            nn.Conv2d(s.channels, s.wide, 3, padding=1),
            *(ResidualBlock(s.wide) for _ in range(s.decoder_blocks)),
            nn.SiLU(),
            nn.Conv2d(s.wide, 4 * s.middle, 1),
            nn.PixelShuffle(2),
            *(ResidualBlock(s.middle) for _ in range(s.edge_blocks)),
            nn.SiLU(),
            nn.Conv2d(s.middle, 48, 3, padding=1),
            nn.PixelShuffle(4),
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def latents(self, images: Tensor) -> Tensor:
        """Latents ``(n, channels, h / 8, w / 8)`` of images ``(n, 3, h, w)`` in [-1, 1]."""
        return torch.as_tensor(self.scale(self.encoder(images).float()))

    def decode(
        self, latents: Tensor, return_dict: bool = True, generator: Any = None
    ) -> SimpleNamespace | tuple[Tensor]:
        """Images in [-1, 1] of latents; ``generator`` is not used."""
        images = self.decoder(latents)
        return SimpleNamespace(sample=images) if return_dict else (images,)

    def forward(self, images: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor]:
        """Latents, and the images decoded from them after noise of up to that deviation."""
        latents = self.latents(images)
        strength = noise * torch.rand(len(latents), 1, 1, 1)
        return latents, self.decoder(latents + strength * torch.randn_like(latents))


def reconstruction_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Absolute error of pixels, and of the differences between neighbours, which keeps edges."""
    error = decoded.float() - images
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + 0.5 * (across + down)
