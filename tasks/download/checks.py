"""What can be known to be wrong with a source before anything of it is fetched or kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import islice
from urllib.parse import urlsplit

from data.download.image_codec import process
from data.download.settings import ImageRules
from data.io.image_decoder import ImageError
from data.sources.base import Pair, Rejected, Source, SourceError
from tasks.config.download import DownloadConfig
from tasks.download.sources import source_of

_SHIPPED = ("embedded", "scenes")  # their pairs are known to be good
_LOOKED_AT = 1000  # rows of a split, until one is found that can be used
_PATIENCE = 30.0  # seconds for a split


def check_source(config: DownloadConfig, needed: Mapping[str, Collection[str]]) -> None:
    """See that a source has the splits that stages read, and that each has a pair to use.

    Args:
        needed: split -> the stages that read it.

    Raises:
        SourceError: a split is not given, cannot be read, or has no pair that could be used; says
            why its rows cannot.
    """
    source = source_of(config)
    given = source.splits()
    missing = [split for split in needed if split not in given]
    if missing:
        readers = sorted({stage for split in missing for stage in needed[split]})
        raise SourceError(
            f"the source {config.source!r} has the splits {', '.join(given)} and no "
            f"{' and no '.join(missing)}, which {', '.join(readers)} read. Name files for "
            'each in download.paths; rows of one list do too: {"train": "a.tsv[5000:]", '
            '"validation": "a.tsv[:2500]", "test": "a.tsv[2500:5000]"}'
        )
    if config.source not in _SHIPPED:
        for split in given:
            _check_split(config, source, split)


def _check_split(config: DownloadConfig, source: Source, split: str) -> None:
    place = f"the split {split!r} ({config.paths.get(split, '')})"
    rules, reasons, sample = ImageRules.of(config), Counter[str](), ""
    began = time.monotonic()
    try:
        for row in islice(source.pairs(split), _LOOKED_AT):
            reason, detail = _why_not(row, source.remote, rules)
            if not reason or time.monotonic() - began > _PATIENCE:
                return
            reasons[reason] += 1
            sample = sample or detail
    except SourceError:
        raise
    except KeyError as error:
        raise SourceError(
            f"{place} has no column {error}; download.columns is {config.columns}"
        ) from error
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise SourceError(f"{place} cannot be read: {type(error).__name__}: {said}") from error
    if not reasons:
        raise SourceError(f"{place} has no rows; name other files or other rows of them")
    counts = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
    raise SourceError(
        f"{place} has no pair that could be used among its first {sum(reasons.values())} rows "
        f"({counts}). The first: {sample}"
    )


def _why_not(row: Pair | Rejected, remote: bool, rules: ImageRules) -> tuple[str, str]:
    """Why a row makes no pair, and where or what it is; empty where it could."""
    if isinstance(row, Rejected):
        return row.reason, row.place
    if remote:
        return ("", "") if _is_address(row.origin) else ("bad_url", repr(row.origin[:200]))
    try:
        process(row.image or b"", rules)
    except ImageError as error:
        return error.reason, f"{row.origin}: {error.detail}"
    return "", ""


def _is_address(text: str) -> bool:
    try:
        address = urlsplit(text)
        return address.scheme in ("http", "https") and bool(address.hostname)
    except ValueError:
        return False
