"""How the image generator samples."""

from __future__ import annotations

from gill.settings import MOST_TOGETHER, PAPER, UNMEASURED, ComponentSettings, setting

MOST_STEPS = 1000  # noise levels that diffusion models are trained on


class Sampling(ComponentSettings):
    """Settings of the image generator's sampler."""

    steps: int = setting(50, "of the sampler", unit="steps", source=PAPER, ge=1, le=MOST_STEPS)
    guidance_scale: float = setting(
        7.5,
        "of classifier-free guidance; 1 is without",
        unit="times",
        source=PAPER,
        ge=0,
        le=1000,
    )
    batch_size: int = setting(
        64,
        "images that are sampled together; it does not bear on the result",
        unit="images",
        source=UNMEASURED,
        extra={"unfingerprinted": True},
        ge=1,
        le=MOST_TOGETHER,
    )
