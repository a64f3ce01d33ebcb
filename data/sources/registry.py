"""The sources by the names that recipes use."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from data.sources.base import Source, SourceSettings
from data.sources.captioned_files import CaptionedFiles
from data.sources.captioned_urls import CaptionedUrls
from data.sources.embedded_pack import EmbeddedPack
from data.sources.huggingface import HuggingFaceDataset
from data.sources.scenes import ScenesAndDrawings
from data.sources.webdataset import TarFiles

SOURCES: Mapping[str, Callable[[SourceSettings], Source]] = {
    "embedded": EmbeddedPack.of,
    "scenes": ScenesAndDrawings.of,
    "cc3m": CaptionedUrls.of,
    "folder": CaptionedFiles.of,
    "webdataset": TarFiles.of,
    "huggingface": HuggingFaceDataset.of,
}
