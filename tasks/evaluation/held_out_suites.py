"""The suites of held-out captions with images, and the gallery of what they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from torch import Tensor

from data.manifest import Manifest
from gill.decision import CHOICES, confident_label
from gill.inference.engine import GillEngine
from gill.mapper import Mapper
from tasks.config.evaluation import EvaluateConfig
from tasks.evaluation.contact_sheet import cards, contact_sheet
from tasks.evaluation.decision_labels import votes_of
from tasks.evaluation.decision_scores import held_out_metrics
from tasks.evaluation.generated_images import GILL, TO_TRUE, GenerationSuite, ImageSet, over_seeds
from tasks.evaluation.held_out import Captions, HeldOut
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
    mean_target: Tensor
    out: Path
    log: StageLog

    def generation(
        self, baselines: Mapping[str, Mapper], metric_networks: MetricNetworks, report: Report
    ) -> tuple[dict[str, float], Columns]:
        """Scores of the image sets over the seeds, and the images of the first seed.

        Args:
            baselines: mappers that are compared with the engine's, by name.
        """
        held_out = self._generated
        suite = GenerationSuite(
            self.engine, baselines, held_out, self.stored, metric_networks, self.mean_target
        )
        sampled = suite.sample(self.config, self.out, self.log)
        report.worst(self._worst(held_out, sampled[0]))
        shown: Columns = {
            **self._beside(held_out.captions),
            **{
                name: [opened(p) for p in made.images[: self.config.gallery]]
                for name, made in sampled[0].items()
            },
        }
        return over_seeds([suite.scores(sets) for sets in sampled]), shown

    @property
    def _generated(self) -> HeldOut:
        """The captions that images are generated for."""
        return self.held_out.of(self.config.sources).first(self.config.images)

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
        count = min(self.config.gallery, sum(row["image"] is not None for row in scored))
        generated = [opened(row["image"] or b"") for row in scored[:count]]
        retrieved = [*self.stored.opened([row["retrieved_key"] for row in scored[:count]])]
        shown = cards(prompts.captions, generated, retrieved, probabilities.tolist())
        self.log.figure("contact_sheet", contact_sheet(shown))
        return metrics, {
            **self._beside(prompts, count),
            GILL: [*generated],
            "retrieved": [*retrieved],
            "decision": [f"{CHOICES[c]} ({float(p[c]):.2f})"
                         for c, p in zip(choices[:count], probabilities[:count], strict=True)],
            "votes say": ["same" if x is None else CHOICES[x] for x in labels[:count]],
        }  # fmt: skip

    def _beside(self, captions: Captions, count: int | None = None) -> Columns:
        """The first prompts and their true images."""
        first = captions.rows(slice(self.config.gallery if count is None else count))
        return {"prompt": [*first.captions], "true image": [*self.stored.opened(first.keys)]}
