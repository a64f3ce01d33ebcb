"""Where the checkout is, and where runs write."""

from __future__ import annotations


import ctypes
import gc
import hashlib
import json
import os
import sys
import threading
from ctypes.util import find_library
from pathlib import Path
from typing import TYPE_CHECKING
from filelock import FileLock
from data.artifacts import sha256_of
from tasks.config.parts import GeneratorConfig, LanguageConfig, PartConfig, RuntimeConfig, VisionConfig
if TYPE_CHECKING:
    import torch

    from gill.backbones.image_generator import ImageGenerator
    from gill.backbones.language import LanguageModel
    from gill.backbones.vision import VisionEncoder



ROOT = Path(__file__).parents[1]


def var_folder() -> Path:
    """Everything that runs write: ``var/`` in the checkout, or ``GILL_VAR``."""
    return Path(os.environ.get("GILL_VAR", ROOT / "var")).absolute()
