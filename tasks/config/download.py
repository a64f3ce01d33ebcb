"""The stage ``download``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from data.download.settings import FetchPlan, HttpLimits, ImageRules
from gill.settings import setting
from tasks.config.base import EMBEDDED, unfingerprinted
from tasks.config.data import ShardedConfig


class DownloadConfig(ShardedConfig, FetchPlan, ImageRules, HttpLimits):
    """Pairs into image shards; docs/how-to/your-own-data.md says what each source wants."""

    source: Literal["embedded", "scenes", "cc3m", "folder", "webdataset", "huggingface"] = setting(
        "embedded", "of the pairs"
    )
    paths: dict[str, str] = setting(
        {}, "split to its file or files, or to the data set's name of the split"
    )
    images: str = setting("", "folder: where the names in the list are", unit="path")
    dataset: str = setting("", "huggingface: a hub name or a folder")
    columns: dict[str, str] = setting({}, "huggingface: caption and image or url to their columns")
    revision: str = setting("main", "huggingface: of the data set")
    scenes: int = unfingerprinted(  # the source's identity has it
        6000,
        "scenes: painted for training; a tenth as many for validation, a fifth for the test",
        unit="scenes",
        source=EMBEDDED,
        ge=10,
    )
    limit: int | None = setting(None, "of each split at most; none: all", unit="pairs", ge=1)
    duplicates: Literal["keep", "drop"] = setting("keep", "images that repeat another's bytes")
    placeholders: Literal["keep", "drop"] = setting(
        "keep", "images that many addresses send in place of what was asked for"
    )
    placeholder_addresses: int = setting(
        10, "that send the same bytes make them a placeholder", unit="addresses", ge=2
    )
    store: str = unfingerprinted(
        "", "an fsspec address that machines share while they fetch; empty: the artifact's folder"
    )

    @model_validator(mode="after")
    def _contact_for_the_web(self) -> Self:
        if (self.source == "cc3m" or "url" in self.columns) and not self.contact:
            raise ValueError(
                "download.contact is empty; whoever is asked for images must be able to ask "
                "back: give a mail address or a page"
            )
        return self
