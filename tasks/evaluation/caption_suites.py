"""The suites of held-out captions without generated images: captioning and retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from data.io.atomic import write_json
from data.scenes.captions import things_in
from gill.evaluation.captioning import (
    caption_frequency_baseline,
    caption_scores,
    word_frequency_baseline,
)
from gill.evaluation.retrieval import recall
from gill.evaluation.statistics import mean_and_error
from gill.inference.engine import GillEngine
from tasks.config.evaluation import EvaluateConfig
from tasks.evaluation.held_out import HeldOut
from tasks.evaluation.scene_reader import scene_of
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
    floors = {
        baseline.__name__: baseline(known, count)
        for baseline in (caption_frequency_baseline, word_frequency_baseline)
    }
    scores: dict[str, float] = {}
    for part, rows in {"": range(count), **held_out.parts()}.items():
        end = f"_{part}" if part else ""
        true = [references[i] for i in rows]
        found = caption_scores([made[i] for i in rows], true)
        scores |= {f"caption_{k}{end}": v for k, v in found.items()}
        for name, floor in floors.items():
            scores[f"{name}_cider{end}"] = caption_scores([floor[i] for i in rows], true)["cider"]
    return scores | _objects_named(made, held_out.truths)


def _objects_named(captions: Sequence[str], truths: Sequence[str]) -> dict[str, float]:
    """F1 of the objects that captions of scenes name, by their words."""
    values = []
    for caption, truth in zip(captions, truths, strict=True):
        if truth:
            said, true = things_in(caption), {g.name for g in scene_of(truth).groups}
            values.append(2 * len(said & true) / (len(said) + len(true)))
    if not values:
        return {}
    mean, error = mean_and_error(torch.tensor(values, dtype=torch.float64))
    return {"caption_object_f1": mean, "caption_object_f1_se": error}


def score_retrieval(engine: GillEngine, held_out: HeldOut) -> dict[str, float]:
    """Recall among held-out pairs, both ways."""
    maps, device = engine.adapters.retrieval, engine.device
    text = maps.embed_text(held_out.captions.states.to(device))
    image = maps.embed_image(held_out.features.to(device))
    scores: dict[str, float] = {}
    for part, rows in {"": list(range(len(held_out))), **held_out.parts()}.items():
        found = recall(text[rows].cpu(), image[rows].cpu())
        scores |= {f"retrieval_{k}" + (f"_{part}" if part else ""): v for k, v in found.items()}
    return scores
