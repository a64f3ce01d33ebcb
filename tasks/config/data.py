"""Stages that make data: download, image features, text targets."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.config.base import Config, unfingerprinted


class ShardedConfig(Config):
    """A stage whose shards can be shared out over the workers of a Ray cluster, in batches."""

    runner: Literal["threads", "ray"] = unfingerprinted("threads")  # threads: of this machine
    ray_address: str = unfingerprinted("")  # of a cluster; otherwise a local one is started
    shards_per_task: int = unfingerprinted(64, ge=1)
    gpus_per_task: float = unfingerprinted(0, ge=0)  # that Ray sets aside for a batch


class DownloadConfig(ShardedConfig):
    """Pairs into image shards; docs/download.md says what each source wants."""

    source: Literal["embedded", "cc3m", "folder", "webdataset", "huggingface"] = "embedded"
    paths: dict[str, str] = Field({})  # split -> file(s), or the data set's name of the split
    images: str = ""  # folder: where the names in the list are
    dataset: str = ""  # huggingface: a hub name or a folder
    columns: dict[str, str] = Field({})  # huggingface: caption and image or url -> their columns
    revision: str = "main"
    limit: int | None = Field(None, ge=1)
    shard_size: int = Field(512, ge=1)
    # What is made of an image, and which are taken.
    resize: Literal["crop", "bound", "original"] = "original"
    size: int = Field(256, ge=1)
    quality: int = Field(95, ge=1, le=100)
    most_pixels: int = Field(100_000_000, ge=1)
    smallest: int = Field(32, ge=1)
    widest: float = Field(8.0, ge=1)
    duplicates: Literal["keep", "drop"] = "keep"
    placeholders: Literal["keep", "drop"] = "keep"
    placeholder_addresses: int = Field(10, ge=2)  # that send the same bytes
    # The web.
    contact: str = unfingerprinted("")  # in the User-Agent: an address or a page
    deadline: float = Field(15.0, gt=0)
    largest_bytes: int = Field(20 << 20, ge=1)
    redirects: int = Field(5, ge=0)
    robots: bool = True
    opt_out: bool = True
    allowed_networks: tuple[str, ...] = ()  # that are not public, such as 127.0.0.0/8
    retries: tuple[Literal["transient", "all"], ...] = ()  # passes over the failures
    # Where and how.
    per_host: int = unfingerprinted(8, ge=1)
    processes: int = unfingerprinted(0, ge=0)  # 0 for one for each core
    in_flight: int = unfingerprinted(64, ge=1)
    shards_at_once: int = unfingerprinted(3, ge=1)
    store: str = unfingerprinted("")  # an fsspec address that machines share while they fetch

    @model_validator(mode="after")
    def _contact_for_the_web(self) -> Self:
        if (self.source == "cc3m" or "url" in self.columns) and not self.contact:
            raise ValueError(
                "download.contact is empty; whoever is asked for images must be able to ask "
                "back: give a mail address or a page"
            )
        return self


class ClipFeaturesConfig(ShardedConfig):
    """Pooled vision features of every image."""

    batch_size: int = unfingerprinted(64, ge=1)


class TextTargetsConfig(ShardedConfig):
    """The generator's text-encoder output for every caption.

    ``int8`` takes 0.52 of the bytes of ``fp16``; docs/download.md has its error.
    """

    form: Literal["fp16", "int8"] = "fp16"
    batch_size: int = unfingerprinted(128, ge=1)


class IndexConfig(Config):
    """The images that can be retrieved."""

    splits: tuple[str, ...] = ("train",)
