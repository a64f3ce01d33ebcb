"""Scores of models on contexts, and the differences that the paper's findings rest on."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gill.evaluation.statistics import mean_and_error
from tasks.evaluation.baselines import slug

SIMILARITY = "image_similarity"


@dataclass(frozen=True)
class ContextScores:
    """A model on a context of a suite.

    Attributes:
        values: for each measure ``(seeds, cases)``. keys: the cases. texts: their contexts' words.
        images: of the first seed, as small files.
    """

    suite: str
    model: str
    context: str
    keys: list[str]
    texts: list[str]
    values: dict[str, Tensor]
    images: list[bytes]

    def mean(self, measure: str) -> float:
        """Mean over cases and seeds; nan where no case has the measure, such as an order."""
        return float(self.values[measure].nanmean()) if measure in self.values else math.nan

    def deviation(self, measure: str) -> float:
        """Standard deviation, over seeds, of the mean over cases; 0 with one seed."""
        if measure not in self.values:
            return math.nan
        means = self.values[measure].nanmean(1)
        return float(means.std()) if len(means) > 1 else 0.0


def measures_of(rows: Sequence[ContextScores]) -> list[str]:
    """The measures that any of some scores has."""
    return list(dict.fromkeys(measure for row in rows for measure in row.values))


@dataclass(frozen=True)
class Difference:
    """A paired difference over cases, seeds averaged, with its standard error over the cases."""

    name: str
    suite: str
    what: str
    measure: str
    mean: float
    error: float


def context_metrics(scores: Sequence[ContextScores]) -> dict[str, float]:
    """Means, deviations over seeds, and differences with their errors."""
    metrics: dict[str, float] = {}
    for row in scores:
        for measure in row.values:
            name = f"{row.suite}_{row.model}_{slug(row.context)}_{measure}"
            metrics[name], metrics[f"{name}_sd"] = row.mean(measure), row.deviation(measure)
    for found in differences(scores):
        metrics[found.name], metrics[f"{found.name}_se"] = found.mean, found.error
    return metrics


def differences(scores: Sequence[ContextScores]) -> list[Difference]:
    """Each model's longer contexts against its first, and GILL against the other models."""
    by_model: defaultdict[tuple[str, str], list[ContextScores]] = defaultdict(list)
    for row in scores:
        by_model[row.suite, row.model].append(row)
    found = []
    for (suite, model), group in by_model.items():
        if model == "truth":
            continue
        for row in group[1:]:
            name = f"{suite}_{model}_{slug(row.context)}_minus_{slug(group[0].context)}"
            what = f"{model}: {row.context} - {group[0].context}"
            found += _differences(name, what, row, group[0])
        if model != "gill":
            ours = {row.context: row for row in by_model.get((suite, "gill"), [])}
            for row in group:
                if row.context in ours:
                    name = f"{suite}_gill_minus_{model}_{slug(row.context)}"
                    what = f"gill - {model}, {row.context}"
                    found += _differences(name, what, ours[row.context], row)
    return found


def _differences(name: str, what: str, a: ContextScores, b: ContextScores) -> list[Difference]:
    found = []
    # Of some factors, such as the order of two things, one of them may have no case.
    for measure in [m for m in a.values if m in b.values]:
        values = a.values[measure].mean(0) - b.values[measure].mean(0)
        mean, error = mean_and_error(values)  # of cases that have what is measured
        found.append(Difference(f"{name}_{measure}", a.suite, what, measure, mean, error))
    return found
