"""Stages that train."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tasks.config.base import Config, Precision, contents, unfingerprinted


class TrainingConfig(Config):
    """What every training stage has. The defaults are the reference run's (facts.md)."""

    steps: int = Field(20_000, ge=1)
    batch_size: int = Field(200, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    warmup_steps: int = 2000
    schedule: Literal["step", "cosine", "trapezoid"] = "step"
    decay_every: int = 10_000
    decay_factor: float = 0.1
    gradient_clip: float = 1.0
    accumulate: int = Field(1, ge=1)  # parts that a batch is trained on in
    precision: Precision = "bfloat16"
    seed: int = 0
    # End with the weights of the best validation instead of the last step's.
    keep_best: bool = False
    early_stopping: int = Field(0, ge=0)  # after so many validations without a best; 0: never
    log_every: int = unfingerprinted(20, ge=1)
    validate_every: int = unfingerprinted(200, ge=1)
    checkpoint_every: int = unfingerprinted(200, ge=1)
    checkpoint_minutes: float = unfingerprinted(20.0, gt=0)
    keep_checkpoints: int = unfingerprinted(2, ge=1)

    def fingerprint_fields(self) -> dict[str, Any]:
        """The fields that bear on the result: with a choice by validation, how it is done too."""
        own = self.model_dump(include={"validate_every", "validation_pairs"})
        return super().fingerprint_fields() | (own if self.keep_best or self.early_stopping else {})


class PairsTrainingConfig(TrainingConfig):
    """A training stage that is validated on image-caption pairs."""

    validation_pairs: int = unfingerprinted(
        0, ge=0
    )  # that a validation looks at; 0: the whole split


class AdaptersConfig(PairsTrainingConfig):
    """W_cap, E_img, W_t2i, W_i2t and the temperature."""

    num_img_tokens: int = Field(8, ge=1)
    num_visual_tokens: int = Field(4, ge=1)
    retrieval_dim: int = Field(256, ge=1)
    max_tokens: int = Field(32, ge=2)  # [IMG] tokens included
    # Text that the visual tokens start as, with {} for one that starts as the words of the image;
    # empty for the reference's random start.
    initial_prompt: str = ""
    # Of W_cap, as a factor of the learning rate: from a start as text it wants smaller steps.
    captioning_rate: float = Field(1.0, gt=0)
    packing_probability: float = Field(0.5, ge=0, le=1)
    captioning_weight: float = 1.0
    img_prediction_weight: float = 1.0
    retrieval_weight: float = 1.0
    # Further steps of W_t2i, W_i2t and the temperature on the cached [IMG] states, once E_img is
    # fixed: they cost no pass of the language model. The reference run has none.
    refine_steps: int = Field(0, ge=0)
    refine_batch_size: int = Field(512, ge=2)
    refine_learning_rate: float = Field(1e-3, gt=0)
    refine_weight_decay: float = Field(0.1, ge=0)
    refine_noise: float = Field(0.5, ge=0)  # on both inputs, relative to their deviation
    state_batch_size: int = unfingerprinted(64, ge=1)

    @model_validator(mode="after")
    def _room_for_the_caption(self) -> Self:
        if self.max_tokens < self.num_img_tokens + 2:
            raise ValueError(
                f"max_tokens {self.max_tokens} leaves no room for a caption beside "
                f"{self.num_img_tokens} [IMG] tokens; it must be {self.num_img_tokens + 2} or more"
            )
        return self


class MapperConfig(PairsTrainingConfig):
    """GILLMapper and the baselines that are trained beside it for comparison."""

    kind: Literal["gill", "linear", "mlp", "encoder"] = "gill"
    hidden_dim: int = 512
    layers: int = 4
    heads: int = 4
    feedforward_dim: int = 2048
    loss_form: Literal["norm", "squared"] = "norm"
    baselines: tuple[Literal["gill", "linear", "mlp", "encoder"], ...] = ("linear",)
    # fitted: in closed form to the first captions, before any training; random as in the reference.
    start: Literal["random", "fitted"] = "random"


class JointConfig(AdaptersConfig):
    """The schedule ``joint``: adapters and mapper together, in the adapters' steps."""

    kind: Literal["gill", "linear", "mlp", "encoder"] = "gill"
    hidden_dim: int = 512
    layers: int = 4
    heads: int = 4
    feedforward_dim: int = 2048
    loss_form: Literal["norm", "squared"] = "norm"
    start: Literal["random", "fitted"] = "random"
    generation_weight: float = 1.0
    baselines: tuple[()] = ()  # what reads a mapper's artifact asks for them

    @classmethod
    def of(
        cls, adapters: AdaptersConfig, mapper: MapperConfig, generation_weight: float
    ) -> JointConfig:
        """The settings of the two stages that it stands for: the mapper gives kind and sizes."""
        own = set(cls.model_fields) - set(AdaptersConfig.model_fields) - {"baselines"}
        sizes = mapper.model_dump(include=own)
        return cls(**adapters.model_dump(), **sizes, generation_weight=generation_weight)


class DecisionConfig(TrainingConfig):
    """Labels by votes of the scorer or of people, then a linear classifier."""

    steps: int = 2000
    warmup_steps: int = 0
    decay_every: int = 0
    precision: Precision = "float32"
    split: str = "validation"  # prompts that no other part was trained on
    train_prompts: int = Field(600, ge=1)
    validation_prompts: int = Field(600, ge=1)
    votes: int = Field(5, ge=1)
    margin: float = Field(0.02, ge=0)
    # Judge each prompt against the usual gap between generated and retrieved images. Without it a
    # scorer that likes real images better than this generator's votes "retrieve" for nearly all.
    balance: bool = False
    # A TSV with votes of people (docs/evaluation.md). Its prompts then take the place of ``split``:
    # ``train_prompts`` of those with a confident label train, the rest validates.
    votes_file: str = contents()
    rare_classes: Literal["as_is", "weight", "resample"] = "weight"
    # Models with a further feature, trained beside the main one to be compared and not kept.
    ablations: tuple[Literal["retrieval_score"], ...] = ("retrieval_score",)
    dropout: float = 0.5
