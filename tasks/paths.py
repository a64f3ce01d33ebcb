"""Where the checkout is, and where runs write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


ROOT = Path(__file__).parents[1]


def var_folder() -> Path:
    """Everything that runs write: ``var/`` in the checkout, or ``GILL_VAR``."""
    return Path(os.environ.get("GILL_VAR", ROOT / "var")).absolute()
