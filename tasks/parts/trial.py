"""Frozen parts tried before any stage begins: what fails hours later fails at once."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from tasks.config.parts import PartsConfig, RuntimeConfig
from tasks.parts.checks import OWN, PartError
from tasks.parts.loading import load_generator, load_language, load_text_encoder, load_vision


def try_parts(parts: PartsConfig, runtime: RuntimeConfig, wanted: Collection[str]) -> None:
    """Load each part and use it once, one after the other, so that only one takes memory.

    The parts that ship with the project are left out: its tests try them.

    Args:
        wanted: of language, vision, generator, text_encoder; the last is left out where the whole
            generator is wanted.

    Raises:
        PartError: whatever is wrong with one; says which, by its setting.
    """
    for kind in _of_others(parts, wanted):
        try:
            _TRIALS[kind](parts, runtime)
        except Exception as error:  # of damaged files libraries raise whatever comes
            raise PartError(_said(f"parts.{_whole(kind)}", error)) from error
        gc.collect()


def try_parts_apart(parts: PartsConfig, runtime: RuntimeConfig, wanted: Collection[str]) -> None:
    """``try_parts`` in a process of its own, which gives back all memory, also a GPU's.

    Raises:
        PartError: whatever is wrong with one; says which, by its setting.
    """
    if not _of_others(parts, wanted):
        return
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            problem = pool.submit(_problem, parts, runtime, list(wanted)).result()
        except BrokenProcessPool as error:
            raise PartError(
                f"the process that loaded {', '.join(_of_others(parts, wanted))} was killed: there "
                "is too little memory for one of them"
            ) from error
    if problem:
        raise PartError(problem)


def _problem(parts: PartsConfig, runtime: RuntimeConfig, wanted: Collection[str]) -> str:
    try:
        try_parts(parts, runtime, wanted)
    except PartError as error:
        return str(error)
    return ""


def _said(setting: str, error: Exception) -> str:
    """What is wrong with a part, with its setting and, where no person wrote it, the kind."""
    told = isinstance(error, ValueError | OSError | RuntimeError | ImportError)
    said = str(error) if told and str(error) else f"{type(error).__name__}: {error}"
    return said if said.startswith(setting) else f"{setting}: {said}"


def _whole(kind: str) -> str:
    return "generator" if kind == "text_encoder" else kind


def _of_others(parts: PartsConfig, wanted: Collection[str]) -> list[str]:
    """Parts to try: not those that ship, and a text encoder not beside the whole generator."""
    names = {kind: getattr(parts, _whole(kind)).name for kind in wanted}
    return [
        kind
        for kind in sorted(names)
        if names[kind] not in OWN and not (kind == "text_encoder" and "generator" in names)
    ]


def _language(parts: PartsConfig, runtime: RuntimeConfig) -> None:
    # A language model is tried on a few tokens by its constructor.
    language = load_language(parts.language, runtime)
    weight = language.embedding.weight
    _finite(parts.language.name, "embeddings", bool(weight[:64].isfinite().all()))


def _vision(parts: PartsConfig, runtime: RuntimeConfig) -> None:
    import torch

    vision = load_vision(parts.vision, runtime)
    pixels = torch.zeros(1, 3, vision.image_size, vision.image_size)
    projected = vision.project(vision.pooled(pixels))
    _finite(parts.vision.name, "features", bool(projected.isfinite().all()))
    if vision.text(["a cat"]).shape != projected.shape:
        raise PartError(f"{parts.vision.name} embeds images and texts in different widths")


def _generator(parts: PartsConfig, runtime: RuntimeConfig) -> None:
    generator = load_generator(parts.generator, runtime)
    target = generator.encode_text(["a cat"])
    _finite(parts.generator.name, "targets", bool(target.isfinite().all()))
    image = generator.generate(target, [0], parts.generator.guidance_scale, 1)
    _finite(parts.generator.name, "images", bool(image.isfinite().all()))


def _text_encoder(parts: PartsConfig, runtime: RuntimeConfig) -> None:
    target = load_text_encoder(parts.generator, runtime).encode_text(["a cat"])
    _finite(parts.generator.name, "targets", bool(target.isfinite().all()))


_TRIALS: Mapping[str, Callable[[PartsConfig, RuntimeConfig], None]] = {
    "language": _language,
    "vision": _vision,
    "generator": _generator,
    "text_encoder": _text_encoder,
}


def _finite(name: str, what: str, finite: bool) -> None:
    if not finite:
        raise PartError(
            f"{name} makes {what} that are not finite numbers; its weights are damaged, or its "
            "precision is too low for them"
        )
