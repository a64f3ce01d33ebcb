"""Configuration of the frozen parts and of each stage: frozen, typed, unknown keys refused."""

from tasks.config.adapters import AdaptersConfig
from tasks.config.base import Config
from tasks.config.data import ClipFeaturesConfig, IndexConfig, ShardedConfig, TextTargetsConfig
from tasks.config.decision import DecisionConfig
from tasks.config.download import DownloadConfig
from tasks.config.evaluation import ContextsConfig, EvaluateConfig, MetricNetworksConfig
from tasks.config.mapper import JointConfig, MapperConfig
from tasks.config.parts import (
    GeneratorConfig,
    LanguageConfig,
    PartConfig,
    PartsConfig,
    RuntimeConfig,
    VisionConfig,
)
from tasks.config.training import PairsTrainingConfig, TrainingConfig

__all__ = [
    "AdaptersConfig",
    "ClipFeaturesConfig",
    "Config",
    "ContextsConfig",
    "DecisionConfig",
    "DownloadConfig",
    "EvaluateConfig",
    "GeneratorConfig",
    "IndexConfig",
    "JointConfig",
    "LanguageConfig",
    "MapperConfig",
    "MetricNetworksConfig",
    "PairsTrainingConfig",
    "PartConfig",
    "PartsConfig",
    "RuntimeConfig",
    "ShardedConfig",
    "TextTargetsConfig",
    "TrainingConfig",
    "VisionConfig",
]
