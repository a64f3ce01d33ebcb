"""Room on a disk."""

from __future__ import annotations

import shutil
from pathlib import Path


def free_bytes(path: Path) -> int:
    """Bytes that are free on the disk of a path, which need not exist."""
    absolute = path.absolute()
    there = next(folder for folder in (absolute, *absolute.parents) if folder.exists())
    return shutil.disk_usage(there).free
