"""Images of held-out captions under several conditionings: sampled, scored and kept in chunks."""

from __future__ import annotations

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
from gill.inference.engine import GillEngine
from gill.inference.results import as_pil
from gill.mapper import Mapper
from tasks.config.evaluation import EvaluateConfig
from tasks.evaluation.held_out import HeldOut
from tasks.evaluation.metric_networks import MetricNetworks, as_pixels
from tasks.evaluation.prompt_scores import seeds_of
from tasks.evaluation.stored import StoredImages
from tasks.evaluation.thumbnails import thumbnail
from tasks.runner.shard_map import CHUNK, ChunkedWork
from tasks.tracking.stage_log import StageLog

IMAGES = "images"
TO_TRUE = "image_image_similarity"
TO_TEXT = "image_text_similarity"
GILL = "gill"


@dataclass(frozen=True)
class Condition:
    """What a set of images is sampled from.

    Attributes:
        of: the conditioning ``(rows, num_targets, target_dim)`` of some prompts.
        guidance_scale: another one than the recipe's.
    """

    of: Callable[[slice], Tensor]
    guidance_scale: float | None = None


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
    """

    engine: GillEngine
    baselines: Mapping[str, Mapper]
    held_out: HeldOut
    stored: StoredImages
    metric_networks: MetricNetworks

    def conditions(self) -> dict[str, Condition]:
        """GILL, each baseline mapper, the ceiling (own text encoder) and the floor (no text)."""
        states, targets = self.held_out.captions.states, self.held_out.targets
        empty = self.engine.generator.encode_text([""]).float().cpu()

        def mapped(mapper: Mapper | None, rows: slice) -> Tensor:
            return self.engine.conditioning(states[rows], mapper)

        return {
            GILL: Condition(partial(mapped, None)),
            **{name: Condition(partial(mapped, mapper)) for name, mapper in self.baselines.items()},
            "own_text_encoder": Condition(lambda rows: targets[rows]),
            "unconditional": Condition(
                lambda rows: empty.expand(rows.stop - rows.start, -1, -1), guidance_scale=1.0
            ),
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
        changes = (
            {} if condition.guidance_scale is None else {"guidance_scale": condition.guidance_scale}
        )
        seeds = seeds_of(seed, range(rows.start, rows.stop))
        images = engine.sample(condition.of(rows), seeds, **changes)
        pooled, vectors = engine.encode_images(images)
        true = engine.vision.project(self.held_out.features[rows]).cpu()
        text = engine.vision.text(captions.captions).cpu()
        values = {
            TO_TRUE: paired_similarity(vectors, true),
            TO_TEXT: paired_similarity(vectors, text),
        }
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
    """Means of the same metrics over seeds; with several also deviations, as ``<name>_sd``."""
    found = {name: fmean(s[name] for s in scores) for name in scores[0]}
    if len(scores) > 1:
        names = [n for n in scores[0] if not n.endswith("_se")]
        found |= {f"{name}_sd": stdev(s[name] for s in scores) for name in names}
    return found


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
    error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {name: float(values.mean()), f"{name}_se": error}
