"""Sizes of the trained parts, read from the frozen parts and stored beside the weights."""

from __future__ import annotations

from gill.mapper import MapperSize
from gill.settings import REFERENCE, WIDEST, ComponentSettings, setting


class AdapterSize(ComponentSettings):
    """The sizes of the adapters that one chooses."""

    num_img_tokens: int = setting(
        8, "r, the [IMG] tokens of an image", unit="tokens", source=REFERENCE, ge=1, le=1024
    )
    num_visual_tokens: int = setting(
        4,
        "k, the input embeddings that an image becomes",
        unit="tokens",
        source=REFERENCE,
        ge=1,
        le=1024,
    )
    retrieval_dim: int = setting(
        256,
        "width of the space of retrieval",
        unit="dimensions",
        source=REFERENCE,
        ge=1,
        le=WIDEST,
    )


class AdapterSpec(AdapterSize):
    """What it takes to build the adapters for a language model.

    Attributes:
        vision_dim: width of the pooled vision feature. llm_dim: width of the LLM's embeddings.
    """

    vision_dim: int
    llm_dim: int


class MapperSpec(ComponentSettings):
    """What it takes to build a mapper between a language model and an image generator.

    Attributes:
        llm_dim: width of the [IMG] states. num_img_tokens: r, how many there are.
        num_targets: positions of the conditioning. target_dim: its width.
    """

    llm_dim: int
    num_img_tokens: int
    num_targets: int
    target_dim: int
    size: MapperSize
