"""Stages that make data shard by shard, and the index."""

from __future__ import annotations

from typing import Literal

from gill.settings import setting
from tasks.config.base import Config, unfingerprinted


class ShardedConfig(Config):
    """A stage whose shards can be shared out over the workers of a Ray cluster, in batches."""

    runner: Literal["threads", "ray"] = unfingerprinted(
        "threads", "threads of this machine, or workers of a Ray cluster"
    )
    ray_address: str = unfingerprinted("", "of the cluster; empty: a local one is started")
    shards_per_task: int = unfingerprinted(64, "that a task makes", unit="shards", ge=1)
    gpus_per_task: float = unfingerprinted(0, "that Ray sets aside for a task", unit="GPUs", ge=0)


class ClipFeaturesConfig(ShardedConfig):
    """Pooled vision features of every image."""

    batch_size: int = unfingerprinted(64, "images that are encoded together", unit="images", ge=1)


class TextTargetsConfig(ShardedConfig):
    """The generator's text-encoder output for every caption."""

    form: Literal["fp16", "int8"] = setting(
        "fp16", "of the stored values: int8 takes 0.52 of the bytes (docs/download.md: its error)"
    )
    batch_size: int = unfingerprinted(
        128, "captions that are encoded together", unit="captions", ge=1
    )


class IndexConfig(Config):
    """The images that can be retrieved."""

    splits: tuple[str, ...] = setting(("train",), "whose images are indexed")
