"""The suites of held-out captions without generated images: captioning and retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.io.atomic import write_json
from gill.evaluation.captioning import (
    caption_frequency_baseline,
    caption_scores,
    word_frequency_baseline,
)
from gill.evaluation.retrieval import recall
from gill.inference.engine import GillEngine
from tasks.config.evaluation import EvaluateConfig
from tasks.evaluation.held_out import HeldOut
from tasks.tracking.stage_log import StageLog

_TOGETHER = 64


def score_captioning(
    config: EvaluateConfig,
    engine: GillEngine,
    held_out: HeldOut,
    known: Sequence[str],
    out: Path,
    log: StageLog,
) -> dict[str, float]:
    """Caption held-out images, and compare with captions made of what is frequent.

    Args:
        known: the training captions, for those baselines.
        out: gets ``captions.json``.
    """
    held_out = held_out.first(config.captions)
    count, references = len(held_out), held_out.captions.captions
    made: list[str] = []
    log.progress(0, count, "captions")
    for part in held_out.features.split(_TOGETHER):
        made += engine.caption(list(part), config.max_new_tokens)
        log.progress(len(made), count, "captions")
    write_json(
        out / "captions.json",
        [{"key": k, "caption": c, "reference": r}
         for k, c, r in zip(held_out.captions.keys, made, references, strict=True)],
    )  # fmt: skip
    scores = {f"caption_{k}": v for k, v in caption_scores(made, references).items()}
    for baseline in (caption_frequency_baseline, word_frequency_baseline):
        floor = caption_scores(baseline(known, count), references)
        scores[f"{baseline.__name__}_cider"] = floor["cider"]
    return scores


def score_retrieval(engine: GillEngine, held_out: HeldOut) -> dict[str, float]:
    """Recall among held-out pairs, both ways."""
    maps, device = engine.adapters.retrieval, engine.device
    text = maps.embed_text(held_out.captions.states.to(device))
    image = maps.embed_image(held_out.features.to(device))
    return {f"retrieval_{k}": v for k, v in recall(text.cpu(), image.cpu()).items()}
