"""Runs that differ in one setting, summed up: a table and plots with error bars over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from scipy.stats import sem

from data.artifacts import Artifact
from data.io.atomic import write_json
from data.shards import read_table
from tasks.evaluation.context_scores import SIMILARITY
from tasks.evaluation.generated_images import IMAGES, TO_TRUE
from tasks.paths import var_folder
from tasks.tracking import mlflow_runs
from tasks.tracking.mlflow_log import MlflowStageLog
from tasks.tracking.stage_log import logger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRED = "similarity less the recipe's"
OF_CONTEXTS = (SIMILARITY, "object_f1")  # of the many measures of each context


@dataclass(frozen=True)
class Point:
    """A setting of a sweep and what each seed gave.

    Attributes:
        sweep: the setting that varies, such as ``mapper.kind``. value: what it was set to.
        runs: the metrics of each seed's run. ids: their MLflow runs.
        similarities: of each held-out caption's image to the true one, by key, mean over seeds.
        own: whether the recipe itself has this value.
    """

    sweep: str
    value: str | int
    runs: list[dict[str, float]]
    ids: list[str]
    similarities: Mapping[str, float] = field(default_factory=dict)
    own: bool = False

    def mean(self, metric: str) -> float:
        """Mean over seeds."""
        return fmean(run[metric] for run in self.runs)

    def deviation(self, metric: str) -> float:
        """Standard deviation over seeds, 0 with one."""
        return stdev(run[metric] for run in self.runs) if len(self.runs) > 1 else 0.0


def headline(stages: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What a pipeline run says about its mapper: held-out losses, retrieval, images, contexts."""
    found = {"l_g": stages["mapper"]["validation_l_g"]}
    found |= {
        name: stages["adapters"][f"validation_{name}"]
        for name in ("t2i_r1", "t2i_r10")
        if f"validation_{name}" in stages["adapters"]
    }
    means = {
        name: value
        for name, value in stages["evaluate"].items()
        if "_minus_" not in name and not name.endswith(("_se", "_sd"))
    }
    found |= {n.removeprefix("gill_"): v for n, v in means.items() if n.startswith("gill_")}
    return found | {
        name.replace("_gill_", "_"): value
        for name, value in means.items()
        if "_gill_" in name and name.endswith(OF_CONTEXTS)
    }


def similarities(evaluated: Sequence[Artifact]) -> dict[str, float]:
    """Similarity of each held-out caption's image to the true one, mean over evaluations."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for artifact in evaluated:
        for path in artifact.file(IMAGES).glob("gill-*.parquet"):
            for row in read_table(path, ["key", TO_TRUE]).to_pylist():
                found[row["key"]].append(row[TO_TRUE])
    return {key: fmean(values) for key, values in found.items()}


def paired(point: Point, points: Sequence[Point]) -> tuple[float, float] | None:
    """Mean difference of the similarities from the recipe's own point of the sweep.

    The same captions and seeds are compared, so what images of other captions differ by is not in
    the error, which is a standard error over captions.

    Returns:
        Mean and error; None for the recipe's own point and where there is no such point.
    """
    own = next((p for p in points if p.own and p.sweep == point.sweep), None)
    if own is None or point is own:
        return None
    differences = [
        point.similarities[k] - own.similarities[k]
        for k in point.similarities.keys() & own.similarities.keys()
    ]
    if len(differences) < 2:
        return None
    return fmean(differences), float(sem(differences))


def metrics_of(points: Sequence[Point]) -> list[str]:
    """The metrics that every run has."""
    return [m for m in points[0].runs[0] if all(m in run for p in points for run in p.runs)]


def as_table(points: Sequence[Point]) -> str:
    """A Markdown table: mean and standard deviation over seeds, and ``paired``."""
    metrics = metrics_of(points)
    lines = ["| sweep | value | seeds | " + " | ".join([*metrics, PAIRED]) + " |"]
    lines.append("|---" * (4 + len(metrics)) + "|")
    for point in points:
        cells = [f"{point.mean(m):.4f} ± {point.deviation(m):.4f}" for m in metrics]
        difference = paired(point, points)
        cells.append("{:+.4f} ± {:.4f}".format(*difference) if difference else "-")
        lines.append(f"| {point.sweep} | {point.value} | {len(point.runs)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plots(points: Sequence[Point]) -> dict[str, Figure]:
    """For each sweep a figure with a panel for each metric; bars are deviations over seeds.

    The last panel shows ``paired``, with standard errors over captions.
    """
    from matplotlib.figure import Figure

    figures = {}
    metrics = metrics_of(points)
    for sweep in dict.fromkeys(p.sweep for p in points):
        members = [p for p in points if p.sweep == sweep]
        shown = {m: [(p.mean(m), p.deviation(m)) for p in members] for m in metrics}
        differences = [paired(p, members) for p in members]
        if any(differences):
            shown[PAIRED] = [found or (0.0, 0.0) for found in differences]
        columns = min(3, len(shown))
        rows = -(-len(shown) // columns)
        figure = Figure(figsize=(3.6 * columns, 2.8 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for unused in panels[len(shown) :]:
            unused.remove()
        for axes, (name, values) in zip(panels, shown.items(), strict=False):
            axes.errorbar(
                [str(p.value) for p in members],
                [value for value, _ in values],
                [bar for _, bar in values],
                fmt="o" if isinstance(members[0].value, str) else "o-",
                capsize=4,
            )
            axes.margins(x=0.15)
            axes.set(title=name.replace("_", " "), xlabel=sweep)
        figures[sweep.replace(".", "_")] = figure
    return figures


def record(points: Sequence[Point], parameters: Mapping[str, Any]) -> str:
    """Write table and plots to an MLflow run and to ``var/ablation``; returns the run's id."""
    run_id = mlflow_runs.start_run("ablation", {"kind": "ablation"})
    folder = var_folder() / "ablation"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        log = MlflowStageLog(run_id, logger)
        mlflow_runs.log_params(run_id, parameters)
        table = as_table(points)
        (folder / "table.md").write_text(table, encoding="utf-8")
        log.document("table.md", table)
        for name, figure in plots(points).items():
            figure.savefig(folder / f"{name}.png", dpi=110)
            log.figure(name, figure)
        for point in points:
            prefix = f"{point.sweep.rpartition('.')[2]}_{point.value}"
            for metric in metrics_of(points):
                values = {f"{prefix}_{metric}": point.mean(metric),
                          f"{prefix}_{metric}_sd": point.deviation(metric)}  # fmt: skip
                mlflow_runs.log_metrics(run_id, values)
            if difference := paired(point, points):
                values = dict(zip((f"{prefix}_paired", f"{prefix}_paired_se"), difference,
                                  strict=True))  # fmt: skip
                mlflow_runs.log_metrics(run_id, values)
        write_json(
            folder / "points.json",
            [{"sweep": p.sweep, "value": p.value, "mlflow_runs": p.ids, "runs": p.runs}
             for p in points],
        )  # fmt: skip
    except BaseException:
        mlflow_runs.end_run(run_id, "FAILED")
        raise
    mlflow_runs.end_run(run_id, "FINISHED")
    return run_id
