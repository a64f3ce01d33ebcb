"""Sizes of the trained parts, read from the frozen parts and stored beside the weights."""

from __future__ import annotations

from dataclasses import dataclass

from gill.mapper import MapperSize


@dataclass(frozen=True)
class AdapterSpec:
    """What it takes to build the adapters for a language model.

    Attributes:
        num_img_tokens: r. num_visual_tokens: k. retrieval_dim: width of the retrieval space.
        vision_dim: width of the pooled vision feature. llm_dim: width of the LLM's embeddings.
    """

    num_img_tokens: int
    num_visual_tokens: int
    retrieval_dim: int
    vision_dim: int
    llm_dim: int


@dataclass(frozen=True)
class MapperSpec:
    """What it takes to build a mapper between a language model and an image generator."""

    llm_dim: int
    num_img_tokens: int
    num_targets: int
    target_dim: int
    size: MapperSize
