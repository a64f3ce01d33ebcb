"""What a download may cost, which images it takes, and how it is cut into shards.

The stage's configuration inherits from these models, so each setting is declared here alone.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

SOURCE = "docs/download.md"
Mode = Literal["transient", "all"]


class DownloadSettings(BaseModel):
    """Base of the settings of the downloader's components: frozen, unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls, whole: Self) -> Self:
        """The part of a configuration that declares more than these settings."""
        return cls(**{name: getattr(whole, name) for name in cls.model_fields})


def _setting(
    default: Any, description: str, unit: str = "", *, bears: bool = True, **constraints: Any
) -> Any:
    """Declare a setting; ``bears``: on what comes out, not only on where and how it is made."""
    marks: dict[str, Any] = {
        "unit": unit,
        "source": SOURCE,
        "unfingerprinted": not bears,
    }
    return Field(default, description=description, json_schema_extra=marks, **constraints)


class ImageRules(DownloadSettings):
    """Which images are taken and what is made of them."""

    resize: Literal["crop", "bound", "original"] = _setting(
        "original",
        "crop: scale the short side to size and cut the centre square; bound: scale down to a "
        "short side of at most size; original: keep the bytes once they were decoded without fault",
    )
    size: int = _setting(256, "of what resize makes", "pixels", ge=1)
    quality: int = _setting(95, "of the JPEG that is made", "of 100", ge=1, le=100)
    most_pixels: int = _setting(100_000_000, "of the original at most", "pixels", ge=1)
    smallest: int = _setting(32, "short side of the original at least", "pixels", ge=1)
    widest: float = _setting(8.0, "long side to short side at most", ge=1)


class HttpLimits(DownloadSettings):
    """What a fetch may cost and where it may go."""

    contact: str = _setting(
        "", "an address or a page that the User-Agent names, for whoever is asked", bears=False
    )
    deadline: float = _setting(15.0, "for an address with all its redirects", "seconds", gt=0)
    largest_bytes: int = _setting(20 << 20, "of a body at most", "bytes", ge=1)
    redirects: int = _setting(5, "that are followed", "hops", ge=0)
    per_host: int = _setting(
        8, "requests to a host at once in a process", "requests", bears=False, ge=1
    )
    longest_pause: float = _setting(
        60.0, "a longer Retry-After is cut to it", "seconds", gt=0, bears=False
    )
    robots: bool = _setting(True, "ask for robots.txt and follow it")
    opt_out: bool = _setting(True, "honour the X-Robots-Tag of an answer")
    allowed_networks: tuple[str, ...] = _setting(
        (), "that may be reached although they are not public, such as 127.0.0.0/8"
    )


class FetchPlan(DownloadSettings):
    """How a list of addresses is cut into shards and fetched."""

    shard_size: int = _setting(512, "of a shard at most", "pairs", ge=1)
    retries: tuple[Mode, ...] = _setting((), "passes over the failures, in their order")
    processes: int = _setting(0, "that fetch; 0: one for each core", "processes", bears=False, ge=0)
    in_flight: int = _setting(64, "requests of a process at once", "requests", bears=False, ge=1)
    shards_at_once: int = _setting(3, "of a process", "shards", bears=False, ge=1)


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
