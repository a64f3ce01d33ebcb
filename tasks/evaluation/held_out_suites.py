"""The suites of held-out captions with images, and the gallery of what they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from data.manifest import Manifest
from gill.decision import CHOICES, confident_label
from gill.inference.engine import GillEngine
from gill.mapper import Mapper
from tasks.config.evaluation import EvaluateConfig
from tasks.evaluation.decision_labels import votes_of
from tasks.evaluation.decision_scores import held_out_metrics
from tasks.evaluation.generated_images import GILL, TO_TRUE, GenerationSuite, ImageSet, over_seeds
from tasks.evaluation.held_out import HeldOut
from tasks.evaluation.metric_networks import MetricNetworks
from tasks.evaluation.prompt_scores import score_prompts
from tasks.evaluation.rendering import Cell
from tasks.evaluation.report import Report
from tasks.evaluation.stored import StoredImages
from tasks.evaluation.thumbnails import opened
from tasks.tracking.stage_log import StageLog

WORST = 12  # prompts that the report shows

Columns = dict[str, list[Cell]]
"""Columns of the gallery, a cell for each prompt."""


@dataclass(frozen=True)
class HeldOutSuites:
    """Runs the suites on the captions of the test split; figures in, figures and columns out."""

    config: EvaluateConfig
    engine: GillEngine
    held_out: HeldOut
    stored: StoredImages
    out: Path
    log: StageLog

    def generation(
        self, baselines: Mapping[str, Mapper], metric_networks: MetricNetworks, report: Report
    ) -> tuple[dict[str, float], Columns]:
        """Scores of the image sets over the seeds, and the images of the first seed.

        Args:
            baselines: mappers that are compared with the engine's, by name.
        """
        held_out = self.held_out.first(self.config.images)
        suite = GenerationSuite(self.engine, baselines, held_out, self.stored, metric_networks)
        sampled = suite.sample(self.config, self.out, self.log)
        report.worst(self._worst(held_out, sampled[0]))
        shown: Columns = {
            name: [opened(p) for p in made.images[: self.config.gallery]]
            for name, made in sampled[0].items()
        }
        return over_seeds([suite.scores(sets) for sets in sampled]), shown

    def _worst(self, held_out: HeldOut, sets: Mapping[str, ImageSet]) -> Columns:
        similarity = sets[GILL].values[TO_TRUE]
        worst = similarity.argsort()[:WORST].tolist()
        captions = held_out.captions
        return {
            "prompt": [captions.captions[i] for i in worst],
            "true image": [*self.stored.opened([captions.keys[i] for i in worst])],
            **{name: [made.images[i] for i in worst] for name, made in sets.items()},
            "similarity": [float(similarity[i]) for i in worst],
        }

    def decisions(self, made: Manifest) -> tuple[dict[str, float], Columns]:
        """The decision model against the scorer's votes, and columns to show.

        Args:
            made: of the decision stage: how it voted, and what it reported.
        """
        prompts = self.held_out.captions.rows(slice(self.config.decision_prompts))
        seeds = range(self.config.seed, self.config.seed + int(made.config["votes"]))
        scored = score_prompts(self.engine, self.stored, prompts, seeds, self.out, self.log)
        gap, margin = made.metrics["usual_gap"], float(made.config["margin"])
        labels = [confident_label(votes_of(row, gap, margin)) for row in scored]
        probabilities = self.engine.decide(prompts.states)
        if probabilities is None:
            raise ValueError("there is no decision model to score; run the stage 'decision'")
        choices = probabilities.argmax(-1).tolist()
        metrics = {"retrieved_image_text_similarity": fmean(r["retrieved_score"] for r in scored)}
        metrics |= held_out_metrics(labels, choices, [r["nearest"] for r in scored], made.metrics)
        first = [row["retrieved_key"] for row in scored[: self.config.gallery]]
        return metrics, {
            "retrieved": [*self.stored.opened(first)],
            "decision": [f"{CHOICES[c]} ({float(p[c]):.2f})"
                         for c, p in zip(choices, probabilities, strict=True)],
            "votes say": ["same" if x is None else CHOICES[x] for x in labels],
        }  # fmt: skip

    def gallery(self, columns: Columns) -> Columns:
        """Columns beside their prompts and true images, as many rows as all of them have."""
        count = min(self.config.gallery, *(len(values) for values in columns.values()))
        captions = self.held_out.captions.rows(slice(count))
        return {
            "prompt": [*captions.captions],
            "true image": [*self.stored.opened(captions.keys)],
            **{name: values[:count] for name, values in columns.items()},
        }
