"""What a download may cost, which images it takes, and how it is cut into shards.

The stage's configuration inherits from these models, so each setting is declared here alone.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MEASURED = "docs/experiments.md, The downloader against img2dataset"
Mode = Literal["transient", "all"]


class DownloadSettings(BaseModel):
    """Base of the settings of the downloader's components: frozen, unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def of(cls, whole: Self) -> Self:
        """The part of a configuration that declares more than these settings."""
        return cls(**{name: getattr(whole, name) for name in cls.model_fields})


def _setting(
    default: Any,
    description: str,
    unit: str = "",
    *,
    source: str,
    bears: bool = True,
    **constraints: Any,
) -> Any:
    """Declare a setting.

    Args:
        source: where the default comes from.
        bears: on what comes out, not only on where and how it is made.
    """
    marks: dict[str, Any] = {
        "unit": unit,
        "source": source,
        "unfingerprinted": not bears,
    }
    return Field(default, description=description, json_schema_extra=marks, **constraints)


def _header(text: str) -> str:
    """A text that stands in a header of HTTP, where a line break would begin another one."""
    if not text.isascii() or not all(character.isprintable() for character in text):
        raise ValueError("must be printable ASCII in one line, as a header of HTTP wants it")
    return text


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"must be a network such as 127.0.0.0/8 ({error})") from error
    return text


class ImageRules(DownloadSettings):
    """Which images are taken and what is made of them."""

    resize: Literal["crop", "bound", "original"] = _setting(
        "original",
        "crop: scale the short side to size and cut the centre square; bound: scale down to a "
        "short side of at most size; original: keep the bytes once they were decoded without fault",
        source="loses nothing",
    )
    size: int = _setting(
        256,
        "of what resize makes",
        "pixels",
        source="the next round number above CLIP's 224",
        ge=1,
        le=16384,
    )
    quality: int = _setting(
        95, "of the JPEG that is made", "of 100", source="img2dataset's", ge=1, le=100
    )
    most_pixels: int = _setting(
        100_000_000,
        "of the original at most",
        "pixels",
        source="above any camera's, below what decoding cannot bear",
        ge=1,
        le=10**9,
    )
    smallest: int = _setting(
        32,
        "short side of the original at least",
        "pixels",
        source="icons are smaller",
        ge=1,
        le=16384,
    )
    widest: float = _setting(
        8.0,
        "long side to short side at most",
        "times",
        source="banners are wider",
        ge=1,
        le=100_000,
    )


class HttpLimits(DownloadSettings):
    """What a fetch may cost and where it may go."""

    contact: Annotated[str, AfterValidator(_header)] = _setting(
        "",
        "an address or a page that the User-Agent names, for whoever is asked",
        source="none: it is yours to give",
        bears=False,
        max_length=200,
    )
    deadline: float = _setting(
        15.0,
        "for an address with all its redirects",
        "seconds",
        source="half as much again as the 10 seconds of " + MEASURED,
        gt=0,
        le=86400,
    )
    largest_bytes: int = _setting(
        20 << 20,
        "of a body at most",
        "bytes",
        source="above nearly all photographs",
        ge=1,
        le=1 << 32,
    )
    redirects: int = _setting(
        5, "that are followed", "hops", source="a longer chain is rarely an image", ge=0, le=100
    )
    per_host: int = _setting(
        8,
        "requests to a host at once in a process",
        "requests",
        source="about as many as a browser sends",
        bears=False,
        ge=1,
        le=10_000,
    )
    longest_pause: float = _setting(
        60.0,
        "a longer Retry-After is cut to it",
        "seconds",
        source="what a shard can wait for a host",
        bears=False,
        gt=0,
        le=86400,
    )
    robots: bool = _setting(True, "ask for robots.txt and follow it", source="RFC 9309")
    opt_out: bool = _setting(
        True, "honour the X-Robots-Tag of an answer", source="the wish of who made the image"
    )
    allowed_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = _setting(
        (),
        "that may be reached although they are not public, such as 127.0.0.0/8",
        source="none: a list from the web must not reach what is private",
    )


class FetchPlan(DownloadSettings):
    """How a list of addresses is cut into shards and fetched."""

    shard_size: int = _setting(
        512,
        "of a shard at most",
        "pairs",
        source="what a kill costs, against the number of files",
        ge=1,
        le=10**6,
    )
    retries: tuple[Mode, ...] = _setting(
        (), "passes over the failures, in their order", source="none", max_length=20
    )
    processes: int = _setting(
        0,
        "that fetch; 0: one for each core",
        "processes",
        source=MEASURED,
        bears=False,
        ge=0,
        le=1024,
    )
    in_flight: int = _setting(
        64,
        "requests of a process at once",
        "requests",
        source=MEASURED,
        bears=False,
        ge=1,
        le=10_000,
    )
    shards_at_once: int = _setting(
        3,
        "of a process",
        "shards",
        source="the last addresses of a shard leave no process idle",
        bears=False,
        ge=1,
        le=1000,
    )


class FetchSettings(FetchPlan):
    """All that the downloader wants to know.

    Attributes:
        store: folder or fsspec address. web: limits of each fetch. images: what is kept.
    """

    store: str
    web: HttpLimits
    images: ImageRules = ImageRules()

    def fingerprint_fields(self) -> dict[str, Any]:
        """What bears on the first pass of a shard."""
        return {
            "shard_size": self.shard_size,
            "images": self.images.model_dump(),
            "web": self.web.model_dump(exclude={"contact", "per_host"}),
        }
