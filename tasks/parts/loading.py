"""Loads the frozen parts that a recipe names."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from filelock import FileLock

from tasks.config.parts import GeneratorConfig, LanguageConfig, RuntimeConfig, VisionConfig
from tasks.parts.devices import device_of
from tasks.parts.identity import HEADS, WEIGHTS
from tasks.parts.library_warnings import libraries_heard
from tasks.paths import var_folder

if TYPE_CHECKING:
    from gill.backbones.image_generator import ImageGenerator
    from gill.backbones.language import LanguageModel
    from gill.backbones.vision import VisionEncoder

# transformers and diffusers import lazily, which is not safe in two threads at once: stages that
# run side by side load one after the other.
LOADING = threading.RLock()


def load_language(config: LanguageConfig, runtime: RuntimeConfig) -> LanguageModel:
    """The language model of a recipe."""
    with LOADING, libraries_heard():
        from gill.backbones import language
        from gill.backbones.testing import micro_models

        device = device_of(runtime)
        if config.name == "tiny":
            return micro_models.language_model()
        name = config.name
        if name == "embedded":
            folder = var_folder() / "backbones" / "smollm2-135m"
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                name = str(language.convert_embedded(folder))
        model = language.load_pretrained(
            name, config.precision, device, config.attention, config.quantization
        )
        if config.checkpoint_activations:
            model.checkpoint_activations()
        return model


def load_vision(config: VisionConfig, runtime: RuntimeConfig) -> VisionEncoder:
    """The vision encoder of a recipe."""
    with LOADING, libraries_heard():
        from gill.backbones import vision
        from gill.backbones.testing import micro_models

        device = device_of(runtime)
        if config.name == "tiny":
            return micro_models.vision_encoder()
        if config.name == "embedded":
            encoder = vision.load_embedded(HEADS).to(device)
        else:
            encoder = vision.load_pretrained(config.name, config.pretrained, device)
        encoder.precision = config.precision
        return encoder


def load_generator(config: GeneratorConfig, runtime: RuntimeConfig) -> ImageGenerator:
    """The image generator of a recipe."""
    with LOADING, libraries_heard():
        from gill.backbones import image_generator
        from gill.backbones.embedded import generator as embedded
        from gill.backbones.testing import micro_models

        device = device_of(runtime)
        if config.name == "tiny":
            return micro_models.image_generator()
        if config.name == "embedded":
            generator = embedded.load_embedded(WEIGHTS).to(device)
        else:
            generator = image_generator.load_pretrained(config.name, device)
        generator.precision = config.precision
        return generator


def load_text_encoder(config: GeneratorConfig, runtime: RuntimeConfig) -> ImageGenerator:
    """The image generator of a recipe with weights in its text encoder alone: makes targets."""
    if config.name in ("tiny", "embedded"):  # small
        return load_generator(config, runtime)
    with LOADING, libraries_heard():
        from gill.backbones import image_generator

        return image_generator.load_pretrained(config.name, device_of(runtime), sampler=False)
