"""Folders with stand-ins for a recipe's frozen parts, which the real loaders take."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from flows.rehearsal.sizes import GENERATOR, LANGUAGE, VISION, Parts
from gill.backbones.testing import published
from gill.backbones.testing.published_tokenizers import opt_tokenizer
from tasks.runner.room import check_room

_MADE = "stand_in.json"  # written last: what the folder holds
_SEED = 0
# Weights of Stable Diffusion 1.5, stored in half precision, and of CLIP's text tower, in single.
_GENERATOR_WEIGHTS, _TEXT_TOWER_WEIGHTS = 1.07e9, 0.124e9

Say = Callable[[str], None]


def make_stand_ins(parts: Parts, folder: Path, say: Say) -> None:
    """Write the folders ``language``, ``vision`` and ``generator``; those that are there are kept.

    Raises:
        DiskFullError: the disk lacks room for them.
    """
    makers: dict[str, tuple[Any, Callable[[Any, Path], None]]] = {
        LANGUAGE: (parts.language, _language),
        VISION: (parts.vision, _vision),
        GENERATOR: (parts.generator, _generator),
    }
    todo = {n: m for n, m in makers.items() if _described(folder / n) != _plain(m[0])}
    wanted = int(sum(bytes_of(size) for size, _ in todo.values()))
    check_room(folder, wanted, "the stand-ins (fewer --layers take less)")
    for name, (size, make) in todo.items():
        say(f"making a stand-in for the {name} part ({bytes_of(size) / 1e9:.1f} GB)")
        target, part = folder / name, folder / f"{name}.part"
        for old in (target, part):
            shutil.rmtree(old, ignore_errors=True)
        part.mkdir(parents=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            make(size, part)
        gc.collect()
        (part / _MADE).write_text(json.dumps(_plain(size)))
        part.rename(target)


def bytes_of(size: Any) -> float:
    """Bytes of a stand-in on the disk."""
    if isinstance(size, published.OptSize):
        rows = size.head_weights + size.positions * size.width
        return 2.0 * (size.layers * size.layer_weights + rows)
    if isinstance(size, published.ClipSize):
        width = int(size.model["vision_cfg"]["width"])
        return 4.0 * (size.layers * 12 * width**2 + _TEXT_TOWER_WEIGHTS)
    return 2.0 * _GENERATOR_WEIGHTS


def _plain(size: Any) -> Any:
    return json.loads(json.dumps(asdict(size)))


def _described(folder: Path) -> Any:
    try:
        return json.loads((folder / _MADE).read_text())
    except (OSError, ValueError):
        return None


def _language(size: published.OptSize, folder: Path) -> None:
    published.opt(size, torch.bfloat16).save_pretrained(folder)
    opt_tokenizer(size.words).save_pretrained(folder)


def _vision(size: published.ClipSize, folder: Path) -> None:
    import open_clip

    weights = published.clip(size).state_dict()
    save_file(
        {k: v.contiguous() for k, v in weights.items()}, folder / "open_clip_model.safetensors"
    )
    how = open_clip.get_pretrained_cfg("ViT-L-14-quickgelu", "openai") or {}
    prepare = {name: how[name] for name in ("mean", "std", "interpolation", "resize_mode")}
    described = {"model_cfg": size.model, "preprocess_cfg": prepare}
    (folder / "open_clip_config.json").write_text(json.dumps(described))


def _generator(size: published.DiffusionSize, folder: Path) -> None:
    published.diffusion(size).to(torch.float16).save_pretrained(folder)
