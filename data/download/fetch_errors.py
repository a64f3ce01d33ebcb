"""Why an address gave no image: the reasons that rows are counted by, and what is worth a retry."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import aiohttp

TRANSIENT = {
    "timeout", "short_body", "net_dns", "net_reset", "host_paused", "robots_unreachable",
    "http_408", "http_429", "http_500", "http_502", "http_503", "http_504",
}  # fmt: skip
BLOCKED = "blocked address"


class FetchError(Exception):
    """Why there is no image: a counted reason, a detail, and when to come back, if known."""

    def __init__(self, reason: str, detail: str = "", retry_at: float = 0.0) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.retry_at = reason, detail[:300], retry_at


_NETWORK = (  # what stands for an error of aiohttp, the most telling first
    (aiohttp.ClientConnectorDNSError, "net_dns"),
    (aiohttp.ClientSSLError, "net_tls"),  # certificates too
    (aiohttp.ClientConnectorError, "net_refused"),
    (aiohttp.ClientPayloadError, "short_body"),
    (aiohttp.InvalidURL, "bad_url"),
    (aiohttp.ClientResponseError, "bad_http"),
    (aiohttp.ClientError, "net_reset"),
)


def network_error(error: aiohttp.ClientError) -> FetchError:
    """What stands for an error of aiohttp."""
    text = " ".join(str(error).split()) or type(error).__name__
    if BLOCKED in text:  # several addresses of a host are tried, and their errors joined
        return FetchError("blocked_address", text)
    return FetchError(next(reason for kind, reason in _NETWORK if isinstance(error, kind)), text)


def retry_seconds(after: str) -> float:
    """Retry-After as seconds from now: a number or a date; 0 for what is neither."""
    try:
        if after.strip().isdigit():
            return float(after)
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
