"""The stage ``adapters``."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from gill.losses import AdapterLossWeights
from gill.settings import MOST, MOST_TOGETHER, PAPER, REFERENCE, UNMEASURED, setting
from gill.specs import AdapterSize
from tasks.config.base import EMBEDDED, Config, unfingerprinted
from tasks.config.training import PairsTrainingConfig


class ImgStatesConfig(Config):
    """How [IMG] states of captions are computed."""

    max_tokens: int = setting(
        32, "of a caption with its [IMG] tokens", unit="tokens", source=REFERENCE, ge=2, le=100_000
    )
    state_batch_size: int = unfingerprinted(
        64,
        "captions whose [IMG] states are computed together",
        unit="captions",
        source=UNMEASURED,
        ge=1,
        le=MOST_TOGETHER,
    )


class AdaptersConfig(PairsTrainingConfig, AdapterSize, AdapterLossWeights, ImgStatesConfig):
    """W_cap, E_img, W_t2i, W_i2t and the temperature."""

    initial_prompt: str = setting(
        "",
        "text that the visual tokens start as, with {} for one that starts as the words of the "
        "image; empty: a random start",
        source=REFERENCE,
    )
    captioning_rate: float = setting(
        1.0,
        "learning rate of W_cap, as a factor of learning_rate; from a start as text it wants "
        "smaller steps",
        unit="times",
        source=REFERENCE,
        gt=0,
        le=1000,
    )
    packing_probability: float = setting(
        0.5,
        "that the examples of a batch are joined in pairs",
        unit="probability",
        source=PAPER,
        ge=0,
        le=1,
    )
    # Further steps of W_t2i, W_i2t and the temperature on the cached [IMG] states, once E_img is
    # fixed: they cost no pass of the language model.
    refine_steps: int = setting(
        0,
        "further steps of the retrieval maps on cached [IMG] states",
        unit="steps",
        source=REFERENCE,
        ge=0,
        le=MOST,
    )
    refine_batch_size: int = setting(
        512, "in these", unit="pairs", source=EMBEDDED, ge=2, le=MOST_TOGETHER
    )
    refine_learning_rate: float = setting(
        1e-3, "in these, with cosine", source=EMBEDDED, gt=0, le=10
    )
    refine_weight_decay: float = setting(0.1, "in these", source=EMBEDDED, ge=0, le=10)
    refine_noise: float = setting(
        0.5,
        "added to both inputs, relative to their deviation",
        unit="standard deviations",
        source=EMBEDDED,
        ge=0,
        le=100,
    )

    @model_validator(mode="after")
    def _room_for_the_caption(self) -> Self:
        if self.max_tokens < self.num_img_tokens + 2:
            raise ValueError(
                f"max_tokens {self.max_tokens} leaves no room for a caption beside "
                f"{self.num_img_tokens} [IMG] tokens; it must be {self.num_img_tokens + 2} or more"
            )
        return self
