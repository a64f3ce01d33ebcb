"""What a recipe says of the pairs: their source, and how they are fetched and converted."""

from __future__ import annotations

from data.download.settings import FetchPlan, FetchSettings, HttpLimits, ImageRules
from data.sources.base import Source
from data.sources.captioned_files import CaptionedFiles
from data.sources.captioned_urls import CaptionedUrls
from data.sources.embedded_pack import EmbeddedPack
from data.sources.huggingface import HuggingFaceDataset
from data.sources.webdataset import TarFiles
from tasks.config.download import DownloadConfig


def source_of(config: DownloadConfig) -> Source:
    """The source that a recipe names."""
    if config.source == "embedded":
        return EmbeddedPack(limit=config.limit)
    if config.source == "cc3m":
        return CaptionedUrls(config.paths, config.limit)
    if config.source == "folder":
        return CaptionedFiles(config.paths, config.limit, config.images)
    if config.source == "webdataset":
        return TarFiles(config.paths, config.limit)
    return HuggingFaceDataset(
        config.dataset, config.columns, config.paths, config.revision, config.limit
    )


def settings_of(config: DownloadConfig, store: str) -> FetchSettings:
    """What the downloader wants to know of a recipe."""
    return FetchSettings(
        store=store,
        web=HttpLimits.of(config),
        images=ImageRules.of(config),
        **FetchPlan.of(config).model_dump(),
    )
