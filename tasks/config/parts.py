"""The frozen parts and the runtime."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from gill.backbones.language import Attention
from gill.backbones.sampling import Sampling
from gill.settings import PAPER, later_setting, setting
from gill.training import Precision
from tasks.config.base import PLAIN, Config, Line, Name, unfingerprinted

_DEVICES = re.compile(r"auto|cpu|mps|cuda|cuda:\d{1,3}(,cuda:\d{1,3})*")
_MOST_WORKERS = 1024


def _devices(text: str) -> str:
    named = text.split(",")
    if not _DEVICES.fullmatch(text) or len(set(named)) < len(named):
        raise ValueError("must be auto, cpu, mps, cuda, cuda:1 or several such as cuda:0,cuda:1")
    return text


class RuntimeConfig(Config):
    """Where and how stages run. Nothing here bears on results."""

    device: Annotated[str, AfterValidator(_devices)] = setting(
        "auto",
        "auto, cpu, mps, cuda, cuda:1, ...; stages that go by shard use all of cuda:0,cuda:1",
        source="CUDA where there is one",
    )
    threads: int = setting(
        0,
        "of PyTorch; 0 leaves the choice to it",
        unit="threads",
        source="PyTorch's",
        ge=0,
        le=_MOST_WORKERS,
    )
    workers: int = setting(
        1,
        "processes that train together, one for each GPU",
        unit="processes",
        source=PLAIN,
        ge=1,
        le=_MOST_WORKERS,
    )
    # Its memory goes back to the system, and the threads of the flow do not slow it down.
    own_process: bool = setting(
        True,
        "give a stage that computes a process of its own",
        source="docs/experiments.md, Idle threads",
    )
    minimum_free_bytes: int = setting(
        1 << 30,
        "a stage does not begin with less room on the disk",
        unit="bytes",
        source="a checkpoint and a few shards",
        ge=0,
        le=1 << 60,
    )


class PartConfig(Config):
    """A frozen part by its name."""

    name: Name = setting(
        ..., "embedded, tiny, a folder or a public name", source="each recipe's own"
    )


class LanguageConfig(PartConfig):
    """The language model: ``embedded``, ``tiny``, a folder or a Hugging Face name."""

    precision: Precision = setting("bfloat16", "of the frozen weights", source=PAPER)
    quantization: Literal["none", "8bit", "4bit"] = setting(
        "none", "of the layers' weights", source=PAPER
    )
    attention: Attention = unfingerprinted(
        "auto",
        "Transformers' attention implementation; auto: the best that the model supports, on a CPU "
        "eager. Rounding apart, all give the same",
        source="what the model supports",
    )
    checkpoint_activations: bool = unfingerprinted(
        False,
        "compute activations again in the backward pass: less memory, a third more time",
        source="the faster way",
    )


class VisionConfig(PartConfig):
    """The image-text model: ``embedded``, ``tiny`` or an open_clip name and its pretraining tag."""

    pretrained: Line = setting("", "pretraining tag of open_clip", source="each recipe's own")
    precision: Precision = later_setting(
        "float32", "of the matrix products; features are stored in 16 bits", source="exact"
    )


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
