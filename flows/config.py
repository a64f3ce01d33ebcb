"""The configuration of a whole pipeline run, and flat overrides of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from tasks.config.base import Config
from tasks.config.data import ClipFeaturesConfig, DownloadConfig, IndexConfig, TextTargetsConfig
from tasks.config.evaluation import EvaluateConfig
from tasks.config.parts import PartsConfig, RuntimeConfig
from tasks.config.training import AdaptersConfig, DecisionConfig, JointConfig, MapperConfig


class ConfigError(ValueError):
    """A recipe, a stage, a key or a value that does not exist or does not fit."""


class PipelineConfig(Config):
    """One frozen model for each stage, the frozen parts, and the runtime."""

    parts: PartsConfig
    # staged: adapters, then the mapper. joint: both together, as in the paper.
    schedule: Literal["staged", "joint"] = "staged"
    generation_weight: float = 1.0  # of l_g among the losses of the joint schedule
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
        return JointConfig.of(self.adapters, self.mapper, self.generation_weight)

    def keys(self) -> list[str]:
        """Every key that can be overridden, such as ``mapper.learning_rate``."""
        return list(_keys(self, ""))

    def with_overrides(self, overrides: Mapping[str, Any]) -> PipelineConfig:
        """A copy with some keys changed.

        Raises:
            ConfigError: a key is unknown (the nearest is named) or a value does not fit.
        """
        values = self.model_dump()
        known = self.keys()
        for key, value in overrides.items():
            if key not in known:
                near = get_close_matches(key, known, n=3, cutoff=0.5)
                hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
                stages = ", ".join(type(self).model_fields)
                raise ConfigError(f"unknown key {key!r}{hint} Keys begin with one of: {stages}")
            *path, last = key.split(".")
            inner = values
            for part in path:
                inner = inner[part]
            inner[last] = value
        try:
            return PipelineConfig.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})"
                for e in error.errors()
            )
            raise ConfigError(f"the overrides do not fit: {problems}") from error


def _keys(model: BaseModel, prefix: str) -> Iterator[str]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
