"""The frozen parts and the runtime."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.config.base import Config, Precision, unfingerprinted


class RuntimeConfig(Config):
    """Where and how stages run. Nothing here bears on results."""

    device: str = "auto"  # or cpu, cuda:1, ...; stages that go by shard use all of cuda:0,cuda:1
    threads: int = 0  # 0 leaves PyTorch's choice
    workers: int = Field(1, ge=1)  # processes that train together; one for each GPU
    # A stage that computes has a process of its own: its memory goes back to the system, and the
    # threads of the flow do not slow it down (docs/experiments.md, Idle threads).
    own_process: bool = True
    minimum_free_bytes: int = 1 << 30


class PartConfig(Config):
    """A frozen part by its name."""

    name: str


class LanguageConfig(PartConfig):
    """The language model: ``embedded``, ``tiny``, a folder or a Hugging Face name."""

    precision: Precision = "bfloat16"
    quantization: Literal["none", "8bit", "4bit"] = "none"  # of the layers' weights
    checkpoint_activations: bool = unfingerprinted(False)  # less memory for a third more time


class VisionConfig(PartConfig):
    """The image-text model: ``embedded``, ``tiny`` or an open_clip name and its pretraining tag."""

    pretrained: str = ""


class GeneratorConfig(PartConfig):
    """The image generator: ``embedded``, ``tiny``, a diffusers folder or hub name."""

    steps: int = Field(50, ge=1)
    guidance_scale: float = 7.5
    precision: Precision = "float32"  # while sampling
    batch_size: int = unfingerprinted(64, ge=1)


class PartsConfig(Config):
    """The three frozen parts."""

    language: LanguageConfig
    vision: VisionConfig
    generator: GeneratorConfig

    @property
    def text_encoder(self) -> PartConfig:
        """The generator's, which gives the mapper's targets; the sampler does not bear on it."""
        return PartConfig(name=self.generator.name)
