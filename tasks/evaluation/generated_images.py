"""Images of held-out captions under several conditionings: drawn, judged and kept in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from data.shards import Columns, lists, matrix
from gill.evaluation.images import frechet_distance, paired_similarity
from gill.mapper import Mapper
from tasks.config.evaluation import EvaluateConfig
from tasks.evaluation.answers import SHOWN, Answers, as_image, stored_images, webp
from tasks.evaluation.metric_networks import MetricNetworks, as_pixels
from tasks.runner.context import StageContext
from tasks.runner.shard_map import PART, Parts

IMAGES = "images"
TO_TRUE = "image_image_similarity"
TO_TEXT = "image_text_similarity"


@dataclass(frozen=True)
class Condition:
    """What a set of images is drawn from.

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
class HeldOut:
    """Held-out captions with all that their images are drawn from and judged by.

    Attributes:
        states: ``(n, r, llm_dim)``. target: ``(n, num_targets, target_dim)``.
        feature: the scorer's features of the true images ``(n, vision_dim)``.
    """

    context: StageContext
    answers: Answers
    metric_networks: MetricNetworks
    keys: list[str]
    captions: list[str]
    states: Tensor
    target: Tensor
    feature: Tensor

    @classmethod
    def load(cls, context: StageContext, answers: Answers, rows: Columns) -> HeldOut:
        """Take as many rows of the test split as the recipe has images."""
        config: EvaluateConfig = context.config
        few = {name: values[: config.images] for name, values in rows.items()}
        target = torch.from_numpy(np.asarray(few["target"], np.float32))
        return cls(
            context=context,
            answers=answers,
            metric_networks=MetricNetworks.load(
                config.metric_networks, answers.vision, context.runtime
            ),
            keys=[str(k) for k in few["key"]],
            captions=[str(c) for c in few["caption"]],
            states=answers.states(few),
            target=target.view(len(target), answers.generator.num_tokens, -1),
            feature=torch.from_numpy(np.asarray(few["feature"], np.float32)),
        )

    def conditions(self) -> dict[str, Condition]:
        """GILL, each baseline mapper, the ceiling (own text encoder) and the floor (no text)."""
        made = self.context.inputs["mapper"].manifest().config
        found: dict[str, Condition] = {}
        for kind in dict.fromkeys((made["kind"], *made["baselines"])):
            name = "gill" if kind == made["kind"] else f"{kind}_mapper"
            found[name] = Condition(partial(self._mapped, self.answers.mapper(kind)))
        found["own_text_encoder"] = Condition(lambda rows: self.target[rows])
        empty = self.answers.generator.encode_text([""]).float().cpu()
        found["unconditional"] = Condition(
            lambda rows: empty.expand(rows.stop - rows.start, -1, -1), guidance_scale=1.0
        )
        return found

    def _mapped(self, mapper: Mapper, rows: slice) -> Tensor:
        return self.answers.conditioning(mapper, self.states[rows])

    def sample(self) -> list[dict[str, ImageSet]]:
        """The sets by name, for each seed; what an earlier process drew is read.

        Every set uses the same seeds, so that differences between sets are paired.
        """
        config: EvaluateConfig = self.context.config
        conditions, count = self.conditions(), len(self.keys)
        total = count * len(conditions) * config.image_seeds
        parts = Parts(self.context, IMAGES, "images", total)
        return [
            {
                name: _read(
                    parts(f"{name}-{seed:05d}", count, partial(self._part, condition, seed))
                )
                for name, condition in conditions.items()
            }
            for seed in range(config.seed, config.seed + config.image_seeds)
        ]

    def _part(self, condition: Condition, seed: int, rows: slice) -> pa.Table:
        answers, keys = self.answers, self.keys[rows]
        seeds = [seed * 100_003 + i for i in range(rows.start, rows.stop)]
        images = answers.sample(condition.of(rows), seeds, condition.guidance_scale)
        pooled, seen = answers.encode_images(images)
        true = answers.vision.project(self.feature[rows]).cpu()
        text = answers.vision.text(self.captions[rows]).cpu()
        values = {
            TO_TRUE: paired_similarity(seen, true),
            TO_TEXT: paired_similarity(seen, text),
        }
        if self.metric_networks.pairwise:
            values |= self.metric_networks.pairs(images, self._true_pixels(rows))
        small = seed == self.context.config.seed
        columns = {
            "key": keys,
            "caption": self.captions[rows],
            **{name: value.numpy() for name, value in values.items()},
            "pooled": lists(pooled.numpy(), np.float32),
            "image": pa.array(
                [webp(as_image(p), SHOWN) if small else None for p in images], pa.binary()
            ),
        }
        if self.metric_networks.inception is not None:
            columns["inception"] = lists(self.metric_networks.inception(images).numpy(), np.float32)
        return pa.table(columns)

    def _true_pixels(self, rows: slice) -> Tensor:
        keys = self.keys[rows]
        stored = stored_images(self.context.inputs["download"], keys, "test")
        return as_pixels([stored[k] for k in keys], self.answers.generator.image_size)

    def scores(self, sets: Mapping[str, ImageSet]) -> dict[str, float]:
        """Measures of each set with standard errors, and GILL's similarity less the others'."""
        scores: dict[str, float] = {}
        for name, found in sets.items():
            for measure, values in found.values.items():
                scores |= _mean(f"{name}_{measure}", values)
            distance = frechet_distance(found.pooled, self.feature)
            scores[f"{name}_frechet_{self.answers.vision.feature_name}_distance"] = distance
            if found.inception is not None:
                scores[f"{name}_fid"] = frechet_distance(found.inception, self._true_inception)
            if name != "gill":
                difference = sets["gill"].values[TO_TRUE] - found.values[TO_TRUE]
                scores |= _mean(f"gill_minus_{name}_image_image", difference)
        scorer = self.answers.vision
        true, text = scorer.project(self.feature).cpu(), scorer.text(self.captions).cpu()
        return scores | _mean("true_image_text_similarity", paired_similarity(true, text))

    @cached_property
    def _true_inception(self) -> Tensor:
        network = self.metric_networks.inception
        if network is None:
            raise ValueError("there is no network to make FID's features")
        starts = range(0, len(self.keys), PART)
        return torch.cat([network(self._true_pixels(slice(s, s + PART))) for s in starts])


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
