"""How far a stage is, beside its folder of unfinished work: for who asks without a server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.io.atomic import WriteError, write_json

_SUFFIX = ".progress.json"


def _path(work: Path) -> Path:
    return work.with_name(f"{work.stem}{_SUFFIX}")


def write_progress(work: Path, progress: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Say how far a stage is.

    Args:
        work: ``<fingerprint>.partial``. progress: counts, rate and time left. metrics: the last.
    """
    try:
        write_json(_path(work), {**progress, "metrics": dict(metrics)})
    except WriteError:
        return  # a full disk: the work itself will say so, and this is only for who looks


def read_progress(work: Path) -> dict[str, Any] | None:
    """What was said last of a stage; None if nothing was, or it cannot be read."""
    try:
        said = json.loads(_path(work).read_bytes())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def forget_progress(work: Path) -> None:
    """Say nothing any more: the work is done or has failed."""
    _path(work).unlink(missing_ok=True)
