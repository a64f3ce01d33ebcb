"""Stages that make data shard by shard, and the index."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from typing_extensions import override

from gill.settings import MOST_TOGETHER, UNMEASURED, later_setting, setting
from tasks.config.base import PLAIN, Config, Line, SplitName, Unique, unfingerprinted


class ShardedConfig(Config):
    """A stage whose shards can be shared out over the workers of a Ray cluster, in batches."""

    runner: Literal["threads", "ray"] = unfingerprinted(
        "threads", "threads of this machine, or workers of a Ray cluster", source=PLAIN
    )
    ray_address: Line = unfingerprinted(
        "", "of the cluster; empty: a local one is started", unit="address", source=PLAIN
    )
    shards_per_task: int = unfingerprinted(
        64, "that a task makes", unit="shards", source=UNMEASURED, ge=1, le=MOST_TOGETHER
    )
    gpus_per_task: float = unfingerprinted(
        0, "that Ray sets aside for a task", unit="GPUs", source=PLAIN, ge=0, le=64
    )

    def of_shards(self) -> Self:
        """This with the default of what bears on no shard, but only on what is made of them."""
        return self


class ClipFeaturesConfig(ShardedConfig):
    """Pooled vision features of every image."""

    batch_size: int = unfingerprinted(
        64,
        "images that are encoded together",
        unit="images",
        source=UNMEASURED,
        ge=1,
        le=MOST_TOGETHER,
    )

    minimum_similarity: float = later_setting(
        -1.0,
        "training pairs whose caption and image have a lower cosine in the CLIP of the recipe are "
        "not trained on; -1: all are",
        unit="cosine",
        source="off, as in the reference run",
        ge=-1,
        le=1,
    )

    @override
    def of_shards(self) -> Self:
        default = type(self).model_fields["minimum_similarity"].default
        return self.model_copy(update={"minimum_similarity": default})

    @property
    def filters(self) -> bool:
        """Whether pairs are left out."""
        return self.minimum_similarity > -1


class TextTargetsConfig(ShardedConfig):
    """The generator's text-encoder output for every caption."""

    form: Literal["fp16", "int8"] = setting(
        "fp16",
        "of the stored values: int8 takes 0.52 of the bytes (docs/experiments.md: its error)",
        source="exact",
    )
    batch_size: int = unfingerprinted(
        128,
        "captions that are encoded together",
        unit="captions",
        source=UNMEASURED,
        ge=1,
        le=MOST_TOGETHER,
    )


class IndexConfig(Config):
    """The images that can be retrieved."""

    splits: Annotated[tuple[SplitName, ...], Unique] = setting(
        ("train",), "whose images are indexed", source="the paper", min_length=1
    )
