"""How well retrieved and generated images fit their prompts, by the frozen scorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import torch
from torch import Tensor

from gill.inference.engine import GillEngine
from gill.inference.index import Match
from gill.inference.results import as_pil
from tasks.evaluation.held_out import Captions
from tasks.evaluation.stored import StoredImages
from tasks.evaluation.thumbnails import thumbnail
from tasks.runner.shard_map import ChunkedWork
from tasks.tracking.stage_log import StageLog

SCORES = "scores"
_SHOWN = 24  # prompts whose first image is kept


class ScoredPrompt(TypedDict):
    """One prompt, the scores of its images, and a generated image of the first prompts.

    ``nearest`` is the retrieved image's score in the retrieval space, ``retrieved_score`` in the
    scorer's; there is one of ``generated_scores`` for each seed.
    """

    key: str
    caption: str
    nearest: float
    retrieved_key: str
    retrieved_score: float
    generated_scores: list[float]
    image: bytes | None


def seeds_of(seed: int, rows: range) -> list[int]:
    """Seeds of the sampler for some rows: the same in every set of images, so they are paired."""
    return [seed * 100_003 + row for row in rows]


def best_matches(engine: GillEngine, states: Tensor, own: Sequence[str]) -> list[Match]:
    """The best image of the index for each of some [IMG] states, never its own.

    Raises:
        ValueError: the index has no other image.
    """
    found = engine.retrieve(states, 1, [(key,) for key in own])
    if not all(found):
        raise ValueError("the index holds no image but a prompt's own; add splits to index.splits")
    return [best for (best,) in found]


def score_prompts(
    engine: GillEngine,
    stored: StoredImages,
    prompts: Captions,
    seeds: range,
    out: Path,
    log: StageLog,
) -> list[ScoredPrompt]:
    """Score the retrieved image of each prompt, and a generated one for each seed.

    What an earlier process scored is kept in ``out``. The first images are kept to be shown.
    """

    def make(rows: slice) -> pa.Table:
        part = prompts.rows(rows)
        places = range(rows.start, rows.stop)
        matches = best_matches(engine, part.states, part.keys)
        keys = [match.key for match in matches]
        text = engine.vision.text(part.captions).cpu()
        retrieved = (engine.vision.project(stored.pooled(keys)).cpu() * text).sum(-1)
        conditioning = engine.conditioning(part.states)
        scores, first = [], None
        for seed in seeds:
            # The places in the chunk: an image depends on its chunk, not on what was kept.
            images = engine.sample(conditioning, seeds_of(seed, range(len(places))))
            first = images if first is None else first
            scores.append((engine.encode_images(images).vectors * text).sum(-1))
        if first is None:
            raise ValueError("at least one seed is needed")
        shown = [
            thumbnail(as_pil(image)) if place < _SHOWN else None
            for place, image in zip(places, first, strict=True)
        ]
        return pa.table(
            {
                "key": part.keys,
                "caption": part.captions,
                "nearest": [match.score for match in matches],
                "retrieved_key": keys,
                "retrieved_score": retrieved.tolist(),
                "generated_scores": torch.stack(scores, dim=1).tolist(),
                "image": pa.array(shown, pa.binary()),
            }
        )

    work = ChunkedWork(log, out / SCORES, "prompts scored", len(prompts))
    scored: list[ScoredPrompt] = work("scores", len(prompts), make).to_pylist()
    return scored
