"""The configuration of a whole pipeline run, and flat overrides of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ValidationError, model_validator

from flows.overrides import ConfigError, check_override
from gill.losses import GenerationLossWeight
from gill.settings import said, setting
from tasks.config.adapters import AdaptersConfig
from tasks.config.data import ClipFeaturesConfig, IndexConfig, TextTargetsConfig
from tasks.config.decision import DecisionConfig
from tasks.config.download import DownloadConfig
from tasks.config.evaluation import EvaluateConfig
from tasks.config.mapper import GivenModel, ImportedConfig, JointConfig, MapperConfig
from tasks.config.parts import PartsConfig, RuntimeConfig


class PipelineConfig(GenerationLossWeight, GivenModel):
    """One frozen model for each stage, the frozen parts, and the runtime."""

    parts: PartsConfig
    schedule: Literal["staged", "joint", "imported"] = setting(
        "staged",
        "staged: the adapters, then the mapper; joint: both together, as in the paper; imported: "
        "neither, but those of model",
        source="docs/experiments.md, Staged against joint",
    )
    runtime: RuntimeConfig = RuntimeConfig()
    download: DownloadConfig = DownloadConfig()
    clip_features: ClipFeaturesConfig = ClipFeaturesConfig()
    text_targets: TextTargetsConfig = TextTargetsConfig()
    adapters: AdaptersConfig = AdaptersConfig()
    mapper: MapperConfig = MapperConfig()
    index: IndexConfig = IndexConfig()
    decision: DecisionConfig = DecisionConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @property
    def joint(self) -> JointConfig:
        """The joint stage's settings are those of the adapters and the mapper."""
        return JointConfig.composed(self.adapters, self.mapper, self)

    @property
    def imported(self) -> ImportedConfig:
        """The imported stage's settings: a model, and how the adapters' stage reads captions."""
        return ImportedConfig.composed(self.adapters, self)

    @model_validator(mode="after")
    def _model_or_training(self) -> Self:
        if self.schedule == "imported" and not self.model:
            raise ValueError("schedule is 'imported' and model names none; `gill import` makes one")
        if self.schedule != "imported" and self.model:
            raise ValueError(
                f"model is {self.model!r} and schedule {self.schedule!r} trains one; set schedule "
                "to 'imported'"
            )
        return self

    @model_validator(mode="after")
    def _rows_for_workers(self) -> Self:
        """Each worker gets rows of a batch; they need not be as many."""
        for name, stage in (("adapters", self.adapters), ("mapper", self.mapper)):
            if self.runtime.workers > stage.batch_size:
                raise ValueError(
                    f"runtime.workers is {self.runtime.workers}; it must be at most "
                    f"{name}.batch_size, which is {stage.batch_size}"
                )
        return self

    def keys(self) -> list[str]:
        """Every key that can be overridden, such as ``mapper.learning_rate``."""
        return list(_keys(self, ""))

    def with_overrides(self, overrides: Mapping[str, Any]) -> PipelineConfig:
        """A copy with some keys changed.

        Raises:
            ConfigError: a key is unknown or renamed, or a value makes no sense.
        """
        values = self.model_dump()
        known = self.keys()
        for key, value in overrides.items():
            check_override(key, value, known, list(type(self).model_fields))
            *path, last = key.split(".")
            inner = values
            for part in path:
                inner = inner[part]
            inner[last] = value
        try:
            return PipelineConfig.model_validate(values)
        except ValidationError as error:
            raise ConfigError(said(error)) from error


def _keys(model: BaseModel, prefix: str) -> Iterator[str]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
