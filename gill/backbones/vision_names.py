"""Names of open_clip models that fit their weights, checked before any are downloaded."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gill.backbones.whole import IncompleteWeightsError, located


class ActivationMismatchError(ValueError):
    """An open_clip architecture computes with another activation than its weights were made for."""


def check_activation(name: str, pretrained: str) -> None:
    """See that an architecture has the activation that a pretraining tag's weights want.

    open_clip builds the architecture as it is named and only warns: OpenAI's weights in plain
    ``ViT-L-14`` then compute with GELU where they were trained with QuickGELU.

    Raises:
        ActivationMismatchError: they differ; names the architecture to use instead.
    """
    import open_clip

    known = open_clip.get_pretrained_cfg(name, pretrained)
    if not known:
        return  # a path, or a tag that open_clip itself refuses
    wanted = bool(known.get("quick_gelu", False))
    if bool((open_clip.get_model_config(name) or {}).get("quick_gelu", False)) == wanted:
        return
    other = f"{name}-quickgelu" if wanted else name.removesuffix("-quickgelu")
    offered = other != name and other in open_clip.list_models()
    remedy = f"use {other!r}" if offered else "open_clip has no architecture for this tag"
    raise ActivationMismatchError(
        f"the weights {pretrained!r} were trained with {'QuickGELU' if wanted else 'GELU'} and the "
        f"architecture {name!r} computes with {'GELU' if wanted else 'QuickGELU'}; {remedy}"
    )


def check_named(name: str, pretrained: str) -> str:
    """See that a name says which weights are meant; a folder's name is returned as a full path.

    Raises:
        IncompleteWeightsError: an architecture without a tag would have random weights.
        FileNotFoundError: a folder that does not exist.
        ValueError: open_clip knows no such architecture, or no such tag of it.
    """
    import open_clip

    schema, _, folder = name.rpartition("local-dir:")
    if "local-dir:" in name and not schema:
        return f"local-dir:{located(folder, 'parts.vision.name')}"
    if ":" in name:
        return name
    if open_clip.get_model_config(name) is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), 3)
        raise ValueError(
            f"parts.vision.name is {name!r}, which open_clip does not know; use one of "
            f"{near or 'open_clip.list_models()'}, or local-dir:<folder>"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not pretrained:
        raise IncompleteWeightsError(
            f"parts.vision.pretrained is empty and {name} alone has random weights; give one of "
            f"{tags}, or the path of a checkpoint"
        )
    if pretrained not in tags and not Path(pretrained).expanduser().is_file():
        raise ValueError(
            f"parts.vision.pretrained is {pretrained!r}, which is neither a tag of {name} nor a "
            f"file; give one of {tags}"
        )
    return name


def check_size(name: str, pretrained: str) -> None:
    """See that a tag's weights are for images of the architecture's size.

    open_clip interpolates the position embeddings of others and says nothing. Only the names of the
    weights' files tell their size, where they end with it.

    Raises:
        IncompleteWeightsError: they are for another size; names the architectures that fit.
    """
    import open_clip

    known = open_clip.get_pretrained_cfg(name, pretrained) or {}
    made_for, built = _size_in_name(known), _built_size(name)
    if made_for is None or made_for == built:
        return
    fitting = [
        other
        for other, tag in open_clip.list_pretrained()
        if tag == pretrained
        and _built_size(other) == made_for
        and (open_clip.get_pretrained_cfg(other, tag) or {}).get("hf_hub") == known.get("hf_hub")
    ]
    raise IncompleteWeightsError(
        f"the weights {pretrained!r} of {name} are for images of {made_for} pixels and the "
        f"architecture reads {built}; use {fitting or 'another tag'}"
    )


def _built_size(name: str) -> int | None:
    import open_clip

    size = (open_clip.get_model_config(name) or {}).get("vision_cfg", {}).get("image_size")
    return max(size) if isinstance(size, list | tuple) else size


def _size_in_name(known: Mapping[str, Any]) -> int | None:
    parts = f"{known.get('hf_hub') or ''}/{known.get('url') or ''}".split("/")
    ends = (re.search(r"[-_](\d{3})(?:px)?(?:\.\w+)?$", part) for part in parts)
    sizes = [int(end[1]) for end in ends if end and 160 <= int(end[1]) <= 1024]
    return sizes[0] if sizes else None
