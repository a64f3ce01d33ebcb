"""Images made from stories and dialogues by several models, sampled and scored for each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data.benchmarks.contexts import Case, Cases
from data.io.atomic import write_json
from data.shards import ShardError, read_table, write_shard
from gill.evaluation.images import paired_similarity
from gill.inference.engine import GillEngine
from gill.inference.prompts import Prompt
from tasks.config.evaluation import EvaluateConfig
from tasks.evaluation.baselines import EvaluatedModel, slug
from tasks.evaluation.context_scores import SIMILARITY, ContextScores
from tasks.evaluation.metric_networks import MetricNetworks, as_pixels
from tasks.evaluation.prompt_scores import seeds_of
from tasks.evaluation.thumbnails import thumbnail
from tasks.tracking.stage_log import StageLog

FOLDER = "contexts"
_READ_TOGETHER = 16

States = Mapping[tuple[str, str], Tensor]
"""[IMG] states ``(cases, r, llm_dim)`` after each context, by suite and the context's name."""


def context_states(engine: GillEngine, cases: Mapping[str, Cases], log: StageLog) -> States:
    """Read every context of every suite; what is too long is cut from the left."""
    states: dict[tuple[str, str], Tensor] = {}
    for suite, made in cases.items():
        for name in made.cases[0].contexts:
            parts = []
            for start in range(0, len(made.cases), _READ_TOGETHER):
                prompts = [
                    _prompt(case, name) for case in made.cases[start : start + _READ_TOGETHER]
                ]
                parts.append(engine.img_states(prompts, truncate_left=True).cpu())
                done, total = start + len(prompts), len(made.cases)
                log.progress(done, total, f"contexts of {suite} read ({name})")
            states[suite, name] = torch.cat(parts)
    return states


def _prompt(case: Case, name: str) -> Prompt:
    return [piece if isinstance(piece, str) else piece.open() for piece in case.contexts[name]]


def score_contexts(
    config: EvaluateConfig,
    cases: Mapping[str, Cases],
    states: States,
    models: Sequence[EvaluatedModel],
    scorer: ContextScorer,
    log: StageLog,
) -> list[ContextScores]:
    """Sample and score every suite, model, context and seed; what an earlier process did is kept.

    Raises:
        ShardError: what is kept is of other cases.
    """
    scores = []
    for suite, made in cases.items():
        true = scorer.true_images(made.cases)
        given = made.cases[0].contexts
        work = [
            (model, name)
            for model in models
            for name in [n for n, pieces in given.items() if model.reads(pieces)][
                : 1 if model.blind else None
            ]
        ]
        for done, (model, name) in enumerate(work, 1):
            sampled = SampledContext(suite, name, model, made.cases, states[suite, name])
            seeds = range(config.contexts.seeds if model.seeded else 1)
            paths = scorer.score(sampled, true, config.seed, seeds)
            scores.append(_read(sampled, paths))
            log.progress(done, len(work), f"contexts of {suite} sampled")
    write_json(scorer.out / "contexts.json", _described(cases, scores))
    return scores


@dataclass(frozen=True)
class SampledContext:
    """A model on one context of the cases of a suite."""

    suite: str
    context: str
    model: EvaluatedModel
    cases: Sequence[Case]
    states: Tensor

    @property
    def stem(self) -> str:
        """How its files are named."""
        return f"{self.suite}-{slug(self.model.name)}-{slug(self.context)}"


@dataclass(frozen=True)
class TrueImages:
    """The true images of a suite: pixels ``(n, 3, s, s)`` and the scorer's unit vectors."""

    pixels: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class ContextScorer:
    """Compares sampled images with the true ones and keeps the figures under ``out``."""

    engine: GillEngine
    metric_networks: MetricNetworks
    out: Path

    def true_images(self, cases: Sequence[Case]) -> TrueImages:
        """The true images of some cases."""
        images = [case.target.open() for case in cases]
        pixels = as_pixels(images, self.engine.generator.image_size)
        return TrueImages(pixels, self.engine.encode_images(images).vectors)

    def score(
        self, sampled: SampledContext, true: TrueImages, first_seed: int, seeds: range
    ) -> list[Path]:
        """Write a file of figures for each seed that has none; returns the files of all."""
        folder = self.out / FOLDER
        paths = [folder / f"{sampled.stem}-{seed:05d}.parquet" for seed in seeds]
        if all(path.exists() for path in paths):
            return paths
        sample = sampled.model.prepare(sampled.cases, sampled.context, sampled.states)
        for seed, path in zip(seeds, paths, strict=True):
            if path.exists():
                continue
            # The same seed for a case in every context and model, so that differences are paired.
            images = sample(seeds_of(first_seed + seed, range(len(sampled.cases))))
            vectors = self.engine.encode_images(images).vectors
            pixels = as_pixels(images, true.pixels.shape[-1])
            values = {SIMILARITY: paired_similarity(vectors, true.vectors)}
            values |= self.metric_networks.truths(pixels, [case.truth for case in sampled.cases])
            values |= self.metric_networks.pairs(pixels, true.pixels)
            shown = [thumbnail(image) if seed == 0 else None for image in images]
            table = {
                "key": [case.key for case in sampled.cases],
                **{measure: v.numpy().astype(np.float32) for measure, v in values.items()},
                "image": pa.array(shown, pa.binary()),
            }
            write_shard(path, pa.table(table))
        return paths


def _read(sampled: SampledContext, paths: Sequence[Path]) -> ContextScores:
    tables = [read_table(path) for path in paths]
    measures = [n for n in tables[0].column_names if n not in {"key", "image"}]
    values = {m: torch.tensor(np.stack([t.column(m).to_numpy() for t in tables])) for m in measures}
    values = {m: v for m, v in values.items() if not v.isnan().all()}  # factors that no case has
    keys, images = (tables[0].column(n).to_pylist() for n in ("key", "image"))
    if keys != [case.key for case in sampled.cases]:
        raise ShardError(
            f"{paths[0]} holds other cases than {sampled.suite} has now; delete "
            f"{paths[0].parent} and run the stage again"
        )
    pieces = [case.contexts[sampled.context] for case in sampled.cases]
    texts = [" / ".join(p for p in given if isinstance(p, str)) for given in pieces]
    model = sampled.model.name
    return ContextScores(sampled.suite, model, sampled.context, keys, texts, values, images)


def _described(cases: Mapping[str, Cases], scores: Sequence[ContextScores]) -> dict[str, object]:
    return {
        "skipped": {suite: dict(made.skipped) for suite, made in cases.items()},
        "rows": [
            {
                "suite": row.suite,
                "model": row.model,
                "context": row.context,
                "cases": len(row.keys),
                "mean": {m: row.mean(m) for m in row.values},
                "deviation_over_seeds": {m: row.deviation(m) for m in row.values},
            }
            for row in scores
        ],
    }
