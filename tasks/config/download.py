"""The stage ``download``."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from data.download.settings import FetchPlan, HttpLimits, ImageRules
from gill.settings import MOST, setting
from tasks.config.base import EMBEDDED, PLAIN, Line, Name, SplitName, unfingerprinted
from tasks.config.data import ShardedConfig

_ROWS = re.compile(r".*\[(\d*):(\d*)\]", re.DOTALL)


def _files(text: str) -> str:
    """Files, with the rows ``[from:to]`` that are taken of them."""
    rows = _ROWS.fullmatch(text)
    if text.endswith("]") and ":" in text.rpartition("[")[2] and rows is None:
        raise ValueError("must end with whole numbers of rows where it ends so: [from:to]")
    if rows is not None and rows[2] and int(rows[2]) <= int(rows[1] or 0):
        raise ValueError("must take some rows: [from:to] with from below to")
    return text


Files = Annotated[Name, AfterValidator(_files)]
_YOURS = "none: it says where your data are"
_IN_ROWS = frozenset({"caption", "image", "url"})  # of a row of a Hugging Face data set


class DownloadConfig(ShardedConfig, FetchPlan, ImageRules, HttpLimits):
    """Pairs into image shards; docs/how-to/your-own-data.md says what each source wants."""

    source: Literal["embedded", "scenes", "cc3m", "folder", "webdataset", "huggingface"] = setting(
        "embedded", "of the pairs", source="needs no network and no files"
    )
    # Of these the source's identity has what bears: what files hold, and not where they lie.
    paths: dict[SplitName, Files] = unfingerprinted(
        {},
        "split to its file or files, or to the data set's name of the split",
        unit="paths",
        source=_YOURS,
    )
    images: Line = unfingerprinted(
        "", "folder: where the names in the list are", unit="path", source=_YOURS
    )
    dataset: Line = unfingerprinted("", "huggingface: a hub name or a folder", source=_YOURS)
    columns: dict[Name, Name] = setting(
        {}, "huggingface: caption and image or url to their columns", source=_YOURS
    )
    revision: Name = setting("main", "huggingface: of the data set", source="the hub's")
    limit: int | None = setting(
        None, "of each split at most; none: all", unit="pairs", source=PLAIN, ge=1, le=MOST
    )
    duplicates: Literal["keep", "drop"] = setting(
        "keep", "images that repeat another's bytes", source="loses nothing"
    )
    scenes: int = unfingerprinted(  # the source's identity has it
        6000,
        "scenes: painted for training; a tenth as many for validation, a fifth for the test",
        unit="scenes",
        source=EMBEDDED,
        ge=10,
        le=MOST,
    )
    placeholders: Literal["keep", "drop"] = setting(
        "keep",
        "images that many addresses send in place of what was asked for",
        source="loses nothing",
    )
    placeholder_addresses: int = setting(
        10,
        "that send the same bytes make them a placeholder",
        unit="addresses",
        source="few images are shared by as many pages",
        ge=2,
        le=MOST,
    )
    store: Line = unfingerprinted(
        "",
        "an fsspec address that machines share while they fetch; empty: the artifact's folder",
        unit="address",
        source="one machine",
    )

    @model_validator(mode="after")
    def _what_the_source_wants(self) -> Self:
        wanted = {
            "cc3m": ("paths",),
            "folder": ("paths", "images"),
            "webdataset": ("paths",),
            "huggingface": ("paths", "dataset", "columns"),
        }.get(self.source, ())
        missing = [f"download.{name}" for name in wanted if not getattr(self, name)]
        if missing:
            raise ValueError(
                f"{' and '.join(missing)} must be set for the source {self.source!r}; "
                "docs/how-to/your-own-data.md has examples"
            )
        if self.source == "huggingface":
            odd = sorted(set(self.columns) - _IN_ROWS)
            if odd or "caption" not in self.columns or len(self.columns) != 2:
                raise ValueError(
                    f"download.columns is {self.columns}; it must name caption and one of image "
                    "and url, each with its column"
                )
        if self.smallest**2 > self.most_pixels:
            raise ValueError(
                f"download.smallest is {self.smallest} and download.most_pixels is "
                f"{self.most_pixels}; no image is as large as the first and within the second"
            )
        return self

    @model_validator(mode="after")
    def _contact_for_the_web(self) -> Self:
        if (self.source == "cc3m" or "url" in self.columns) and not self.contact:
            raise ValueError(
                "download.contact is empty; whoever is asked for images must be able to ask "
                "back: give a mail address or a page"
            )
        return self
