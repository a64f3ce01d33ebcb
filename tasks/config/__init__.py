"""Configuration of the frozen parts and of each stage: frozen, typed, unknown keys refused."""

from tasks.config.base import Config, Precision
from tasks.config.data import (
    ClipFeaturesConfig,
    DownloadConfig,
    IndexConfig,
    ShardedConfig,
    TextTargetsConfig,
)
from tasks.config.evaluation import ContextsConfig, EvaluateConfig, MetricNetworksConfig
from tasks.config.parts import (
    GeneratorConfig,
    LanguageConfig,
    PartConfig,
    PartsConfig,
    RuntimeConfig,
    VisionConfig,
)
from tasks.config.training import (
    AdaptersConfig,
    DecisionConfig,
    JointConfig,
    MapperConfig,
    PairsTrainingConfig,
    TrainingConfig,
)

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
    "Precision",
    "RuntimeConfig",
    "ShardedConfig",
    "TextTargetsConfig",
    "TrainingConfig",
    "VisionConfig",
]
