"""The frozen parts and the runtime."""

from __future__ import annotations

from typing import Literal

from gill.backbones.sampling import Sampling
from gill.settings import setting
from gill.training import Precision
from tasks.config.base import Config, unfingerprinted


class RuntimeConfig(Config):
    """Where and how stages run. Nothing here bears on results."""

    device: str = setting(
        "auto",
        "auto, cpu, cuda, cuda:1, ...; stages that go by shard use all of cuda:0,cuda:1",
        source="CUDA where there is one",
    )
    threads: int = setting(0, "of PyTorch; 0 leaves the choice to it", unit="threads", ge=0)
    workers: int = setting(
        1, "processes that train together, one for each GPU", unit="processes", ge=1
    )
    # Its memory goes back to the system, and the threads of the flow do not slow it down.
    own_process: bool = setting(
        True,
        "give a stage that computes a process of its own",
        source="docs/experiments.md, Idle threads",
    )
    minimum_free_bytes: int = setting(
        1 << 30, "a stage does not begin with less room on the disk", unit="bytes", ge=0
    )


class PartConfig(Config):
    """A frozen part by its name."""

    name: str = setting(..., "embedded, tiny, a folder or a public name")


class LanguageConfig(PartConfig):
    """The language model: ``embedded``, ``tiny``, a folder or a Hugging Face name."""

    precision: Precision = setting("bfloat16", "of the frozen weights", source="the paper")
    quantization: Literal["none", "8bit", "4bit"] = setting(
        "none", "of the layers' weights", source="the paper"
    )
    checkpoint_activations: bool = unfingerprinted(
        False, "compute activations again in the backward pass: less memory, a third more time"
    )


class VisionConfig(PartConfig):
    """The image-text model: ``embedded``, ``tiny`` or an open_clip name and its pretraining tag."""

    pretrained: str = setting("", "pretraining tag of open_clip")


class GeneratorConfig(PartConfig, Sampling):
    """The image generator: ``embedded``, ``tiny``, a diffusers folder or hub name."""

    precision: Precision = setting("float32", "while sampling", source="exact")


class PartsConfig(Config):
    """The three frozen parts."""

    language: LanguageConfig
    vision: VisionConfig
    generator: GeneratorConfig

    @property
    def text_encoder(self) -> PartConfig:
        """The generator's, which gives the mapper's targets; the sampler does not bear on it."""
        return PartConfig(name=self.generator.name)
