"""What a recipe says of the pairs: their source, and how they are fetched and converted."""

from __future__ import annotations

from data.download.settings import FetchPlan, FetchSettings, HttpLimits, ImageRules
from data.sources.base import Source, SourceSettings
from data.sources.registry import SOURCES
from tasks.config.download import DownloadConfig


def source_of(config: DownloadConfig) -> Source:
    """The source that a recipe names."""
    return SOURCES[config.source](
        SourceSettings(
            paths=config.paths,
            limit=config.limit,
            images=config.images,
            scenes=config.scenes,
            dataset=config.dataset,
            columns=config.columns,
            revision=config.revision,
        )
    )


def settings_of(config: DownloadConfig, store: str) -> FetchSettings:
    """What the downloader wants to know of a recipe."""
    return FetchSettings(
        store=store,
        web=HttpLimits.of(config),
        images=ImageRules.of(config),
        **FetchPlan.of(config).model_dump(),
    )
