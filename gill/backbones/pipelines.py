"""Diffusers pipelines in a folder or on the hub: their kind, and their weights whole."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gill.backbones.whole import IncompleteWeightsError, check_whole, located

KEY = "parts.generator.name"
NOT_USED = ("safety_checker", "image_encoder")
LEFT_OUT = ("text_encoder_3", "tokenizer_3", "feature_extractor")  # Stable Diffusion 3 without T5
# What conditions the image in other ways than by one sequence of embeddings, by name.
_REFUSED = {
    "Flux2Pipeline": "is conditioned on several layers of a language model",
    "Flux2KleinPipeline": "is conditioned on several layers of a language model",
    "ZImagePipeline": "takes lists of embeddings of different lengths",
    "IFPipeline": "samples pixels in a cascade of models, without a VAE",
    "IFSuperResolutionPipeline": "is one step of a cascade of models",
    "KandinskyCombinedPipeline": "is conditioned on image embeddings of a prior",
    "KandinskyV22CombinedPipeline": "is conditioned on image embeddings of a prior",
    "StableCascadeCombinedPipeline": "is conditioned on image embeddings of a prior",
    "WuerstchenCombinedPipeline": "is conditioned on image embeddings of a prior",
}
_MASKS = ("prompt_attention_mask", "prompt_embeds_mask", "attention_mask", "prompt_embeds_2")
_WEIGHTS = re.compile(r"(?:\w+_)?model(?:\.(\w+))?(?:-\d+-of-\d+)?\.safetensors")


class UnsuitableGeneratorError(ValueError):
    """A diffusers pipeline that the mapper's output cannot drive; says which and why."""

    def __init__(self, name: str, pipeline: Any, why: str) -> None:
        kind = pipeline if isinstance(pipeline, type) else type(pipeline)
        super().__init__(
            f"{name} ({kind.__name__}) {why}; use a text-to-image pipeline that takes "
            "prompt_embeds, such as Stable Diffusion 1, 2, XL or 3, or Flux 1"
        )


def check_pipeline(name: str, kind: type) -> None:
    """Refuse a class of pipelines that one sequence of embeddings cannot drive.

    Raises:
        UnsuitableGeneratorError: says what it needs instead.
    """
    if kind.__name__ in _REFUSED:
        raise UnsuitableGeneratorError(name, kind, _REFUSED[kind.__name__])
    accepted = inspect.signature(kind.__call__).parameters
    if "prompt_embeds" not in accepted:
        raise UnsuitableGeneratorError(name, kind, "does not take prompt_embeds")
    for mask in _MASKS:
        if mask in accepted:
            raise UnsuitableGeneratorError(name, kind, f"needs {mask}")
    if not hasattr(kind, "encode_prompt"):
        raise UnsuitableGeneratorError(name, kind, "does not encode a prompt by itself")


def read_pipeline(
    name: str, device: torch.device, sampler: bool = True, driven: bool = True
) -> Any:
    """Load a text-to-image pipeline from a folder or the Hugging Face hub.

    Args:
        sampler: without it only the text encoders get weights; denoiser and VAE are there by their
            configuration alone.
        driven: whether prompt embeddings are to drive it, which some kinds do not allow.

    Raises:
        UnsuitableGeneratorError: its kind cannot be driven, or diffusers has no such kind.
        IncompleteWeightsError: tensors are missing, left over or of another shape.
        FileNotFoundError: a path that leads nowhere.
        ValueError: a single file, or a folder that holds no pipeline.
    """
    import diffusers
    from diffusers import AutoPipelineForText2Image

    folder = _folder(name)
    index = folder / "model_index.json"
    if not index.exists():
        raise ValueError(
            f"{KEY} is {name!r}, a folder without model_index.json: it holds no diffusers pipeline"
        )
    described = json.loads(index.read_text())
    kind = getattr(diffusers, described.get("_class_name", ""), None)
    if kind is None:
        raise ValueError(
            f"{name} is a {described.get('_class_name')}, which diffusers {diffusers.__version__} "
            "does not know"
        )
    if driven:
        check_pipeline(name, kind)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    # What a pipeline can work without is left out; diffusers wants to be told so.
    taken = inspect.signature(kind.__init__).parameters
    without = [p for p in LEFT_OUT if described.get(p, [None, None])[0] is None] + [*NOT_USED]
    parts: dict[str, Any] = {part: None for part in without if part in taken}
    for part, made_of in _modules(described):
        if part in NOT_USED:
            continue
        if sampler or part.startswith("text_encoder"):
            parts[part] = _read(folder, part, made_of, dtype).to(device)
        else:
            parts[part] = _empty(folder, part, made_of)
    try:
        return AutoPipelineForText2Image.from_pretrained(folder, torch_dtype=dtype, **parts)
    except ValueError as error:
        raise UnsuitableGeneratorError(name, kind, f"cannot be assembled: {error}") from error


def _folder(name: str) -> Path:
    from diffusers import DiffusionPipeline

    path = Path(located(name, KEY))
    if path.is_dir():
        return path
    try:
        return Path(DiffusionPipeline.download(name, use_safetensors=True))
    except (OSError, ValueError):
        return Path(DiffusionPipeline.download(name, use_safetensors=True, variant="fp16"))


def _modules(described: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Parts with weights and their classes; others are left to diffusers."""
    for part, made_of in described.items():
        if not isinstance(made_of, list) or made_of[0] not in ("diffusers", "transformers"):
            continue
        kind = getattr(importlib.import_module(made_of[0]), made_of[1], None)
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            yield part, kind


def _read(folder: Path, part: str, kind: Any, dtype: torch.dtype) -> Any:
    if not (folder / part).is_dir():
        raise IncompleteWeightsError(
            f"{folder} has no folder {part!r}, which its model_index.json names; add it, or write "
            f'"{part}": [null, null] there if the pipeline works without (the T5 of Stable '
            "Diffusion 3)"
        )
    found = [m for m in map(_WEIGHTS.fullmatch, (p.name for p in (folder / part).iterdir())) if m]
    variants = {m[1] for m in found}
    if not variants:
        raise IncompleteWeightsError(f"{folder / part} holds no weights as safetensors")
    variant = None if None in variants else min(filter(None, variants))
    named: dict[str, Any] = {"torch_dtype": dtype}
    if kind.__module__.startswith("transformers."):
        named = {"dtype": dtype, "ignore_mismatched_sizes": True}  # they are told, and refused here
    try:
        model, info = kind.from_pretrained(
            folder / part, variant=variant, use_safetensors=True, output_loading_info=True, **named
        )
    except (ValueError, RuntimeError) as error:  # shapes that differ, of diffusers' models
        raise IncompleteWeightsError(f"{folder / part} does not fit its model: {error}") from error
    check_whole(str(folder / part), info)
    return model


def _empty(folder: Path, part: str, kind: Any) -> Any:
    with torch.device("meta"):
        return kind.from_config(kind.load_config(folder / part))
