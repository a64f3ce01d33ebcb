"""How the image generator samples."""

from __future__ import annotations

from gill.settings import PAPER, ComponentSettings, setting


class Sampling(ComponentSettings):
    """Settings of the image generator's sampler."""

    steps: int = setting(50, "of the sampler", unit="steps", source=PAPER, ge=1)
    guidance_scale: float = setting(7.5, "of classifier-free guidance; 1 is without", source=PAPER)
    batch_size: int = setting(
        64,
        "images that are sampled together; it does not bear on the result",
        unit="images",
        extra={"unfingerprinted": True},
        ge=1,
    )
