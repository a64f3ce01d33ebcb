"""A second name for a file: the bytes lie on the disk once."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import copyfileobj

from data.io.atomic import atomic_file


def link_or_copy(source: Path, target: Path) -> bool:
    """Give a file a second name, or copy it where there are no links; False where it is gone.

    Raises:
        WriteError: it cannot be copied.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            os.link(source, target)
        except OSError:
            with source.open("rb") as held, atomic_file(target) as handle:
                copyfileobj(held, handle)
    except FileNotFoundError:
        return False
    return True
