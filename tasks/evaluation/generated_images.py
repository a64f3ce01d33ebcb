"""Images of held-out captions under several conditionings: sampled, scored and kept in chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data.shards import lists, matrix
from gill.evaluation.images import frechet_distance, paired_similarity
from gill.evaluation.statistics import mean_and_error
from gill.inference.engine import GillEngine
from gill.inference.results import as_pil
from gill.mapper import Mapper
from tasks.config.evaluation import EvaluateConfig
from tasks.evaluation.held_out import HeldOut
from tasks.evaluation.metric_networks import MetricNetworks, as_pixels
from tasks.evaluation.prompt_scores import best_matches, seeds_of
from tasks.evaluation.scene_reader import MEASURES
from tasks.evaluation.stored import StoredImages
from tasks.evaluation.thumbnails import thumbnail
from tasks.runner.shard_map import CHUNK, ChunkedWork
from tasks.tracking.stage_log import StageLog

IMAGES = "images"
TO_TRUE = "image_image_similarity"
TO_TEXT = "image_text_similarity"
GILL = "gill"


Condition = Callable[[slice, Sequence[int]], Tensor]
"""Images ``(rows, 3, s, s)`` in [0, 1] of some held-out prompts, with a seed for each."""


@dataclass(frozen=True)
class ImageSet:
    """What is known of the images of one conditioning and seed.

    Attributes:
        values: of each measure ``(n,)``. pooled: the scorer's features ``(n, vision_dim)``.
        inception: FID's features ``(n, 2048)`` where there is that network.
        images: as small files; of the recipe's first seed alone.
    """

    values: dict[str, Tensor]
    pooled: Tensor
    inception: Tensor | None
    images: list[bytes]


@dataclass(frozen=True)
class GenerationSuite:
    """Samples and scores the images of held-out captions.

    Attributes:
        baselines: mappers that are compared with the engine's, by name.
        mean_target: of the training pairs ``(num_targets, target_dim)``.
    """

    engine: GillEngine
    baselines: Mapping[str, Mapper]
    held_out: HeldOut
    stored: StoredImages
    metric_networks: MetricNetworks
    mean_target: Tensor

    def conditions(self) -> dict[str, Condition]:
        """GILL, each baseline mapper, the ceiling, the floors, and the best retrieved image.

        The ceiling is the generator's own text encoder; the floors are the mean of all targets,
        which no caption has a part in, and no text at all.
        """
        engine, targets = self.engine, self.held_out.targets
        captions = self.held_out.captions
        empty = engine.generator.encode_text([""]).float().cpu()[0]

        def mapped(mapper: Mapper | None, rows: slice, seeds: Sequence[int]) -> Tensor:
            return engine.sample(engine.conditioning(captions.states[rows], mapper), seeds)

        def same(target: Tensor, rows: slice, seeds: Sequence[int], **changes: float) -> Tensor:
            return engine.sample(target.expand(len(seeds), -1, -1), seeds, **changes)

        def retrieved(rows: slice, _: Sequence[int]) -> Tensor:
            part = captions.rows(rows)
            keys = [match.key for match in best_matches(engine, part.states, part.keys)]
            return as_pixels(self.stored.opened(keys), engine.generator.image_size)

        return {
            GILL: partial(mapped, None),
            **{name: partial(mapped, mapper) for name, mapper in self.baselines.items()},
            "own_text_encoder": lambda rows, seeds: engine.sample(targets[rows], seeds),
            "mean_target": partial(same, self.mean_target),
            "unconditional": partial(same, empty, guidance_scale=1.0),
            "retrieved": retrieved,
        }

    def sample(self, config: EvaluateConfig, out: Path, log: StageLog) -> list[dict[str, ImageSet]]:
        """The sets by name, for each seed; what an earlier process sampled is read from ``out``.

        Every set uses the same seeds, so that differences between sets are paired.
        """
        conditions, count = self.conditions(), len(self.held_out)
        total = count * len(conditions) * config.image_seeds
        work = ChunkedWork(log, out / IMAGES, "images", total)
        seeds = range(config.seed, config.seed + config.image_seeds)
        return [
            {
                name: _read(
                    work(
                        f"{name}-{seed:05d}",
                        count,
                        partial(self._chunk, condition, seed, seed == config.seed),
                    )
                )
                for name, condition in conditions.items()
            }
            for seed in seeds
        ]

    def _chunk(self, condition: Condition, seed: int, keep: bool, rows: slice) -> pa.Table:
        engine, captions = self.engine, self.held_out.captions.rows(rows)
        images = condition(rows, seeds_of(seed, range(rows.start, rows.stop)))
        pooled, vectors = engine.encode_images(images)
        true = engine.vision.project(self.held_out.features[rows]).cpu()
        text = engine.vision.text(captions.captions).cpu()
        values = {
            TO_TRUE: paired_similarity(vectors, true),
            TO_TEXT: paired_similarity(vectors, text),
        }
        values |= self.metric_networks.truths(images, self.held_out.truths[rows])
        if self.metric_networks.pairwise:
            values |= self.metric_networks.pairs(images, self._true_pixels(rows))
        shown = [thumbnail(as_pil(image)) if keep else None for image in images]
        columns = {
            "key": captions.keys,
            "caption": captions.captions,
            **{name: value.numpy() for name, value in values.items()},
            "pooled": lists(pooled.numpy(), np.float32),
            "image": pa.array(shown, pa.binary()),
        }
        if self.metric_networks.inception is not None:
            columns["inception"] = lists(self.metric_networks.inception(images).numpy(), np.float32)
        return pa.table(columns)

    def _true_pixels(self, rows: slice) -> Tensor:
        images = self.stored.opened(self.held_out.captions.keys[rows])
        return as_pixels(images, self.engine.generator.image_size)

    def scores(self, sets: Mapping[str, ImageSet]) -> dict[str, float]:
        """Measures of each set with standard errors, and GILL's similarity less the others'."""
        scorer, features = self.engine.vision, self.held_out.features
        scores: dict[str, float] = {}
        for name, made in sets.items():
            for measure, values in made.values.items():
                scores |= _mean(f"{name}_{measure}", values)
            distance = frechet_distance(made.pooled, features)
            scores[f"{name}_frechet_{scorer.feature_name}_distance"] = distance
            if made.inception is not None:
                scores[f"{name}_fid"] = frechet_distance(made.inception, self._true_inception)
            if name != GILL:
                difference = sets[GILL].values[TO_TRUE] - made.values[TO_TRUE]
                scores |= _mean(f"gill_minus_{name}_image_image", difference)
                for measure in MEASURES:
                    if measure in made.values and measure in sets[GILL].values:
                        difference = sets[GILL].values[measure] - made.values[measure]
                        scores |= _mean(f"gill_minus_{name}_{measure}", difference)
        true = scorer.project(features).cpu()
        text = scorer.text(self.held_out.captions.captions).cpu()
        return scores | _mean("true_image_text_similarity", paired_similarity(true, text))

    @cached_property
    def _true_inception(self) -> Tensor:
        network = self.metric_networks.inception
        if network is None:
            raise ValueError("there is no network to make FID's features")
        starts = range(0, len(self.held_out), CHUNK)
        return torch.cat([network(self._true_pixels(slice(s, s + CHUNK))) for s in starts])


def over_seeds(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of metrics over the seeds that have them; of several also deviations, as ``_sd``.

    Of the images of some seeds a factor may be missing, such as an order of two things.
    """
    names = dict.fromkeys(name for of_seed in scores for name in of_seed)
    values = {name: [of_seed[name] for of_seed in scores if name in of_seed] for name in names}
    found = {name: fmean(of) for name, of in values.items()}
    several = {n: of for n, of in values.items() if len(of) > 1 and not n.endswith("_se")}
    return found | {f"{name}_sd": stdev(of) for name, of in several.items()}


def _read(table: pa.Table) -> ImageSet:
    apart = {"key", "caption", "pooled", "inception", "image"}
    measures = [name for name in table.column_names if name not in apart]
    has_inception = "inception" in table.column_names
    return ImageSet(
        values={name: torch.tensor(table.column(name).to_numpy()) for name in measures},
        pooled=torch.from_numpy(np.array(matrix(table, "pooled"))),
        inception=torch.from_numpy(np.array(matrix(table, "inception"))) if has_inception else None,
        images=[p for p in table.column("image").to_pylist() if p is not None],
    )


def _mean(name: str, values: Tensor) -> dict[str, float]:
    """Mean and standard error of the values that are there; nothing where none is."""
    mean, error = mean_and_error(values)
    return {} if math.isnan(mean) else {name: mean, f"{name}_se": error}
