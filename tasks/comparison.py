"""Runs that differ in one setting, summed up: a table and plots with error bars over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from data.artifacts import write_json
from tasks import tracking
from tasks.frozen import var_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """A setting of a sweep and what each seed gave.

    Attributes:
        sweep: the setting that varies, such as ``mapper.kind``. value: what it was set to.
        runs: the metrics of each seed's run. ids: their MLflow runs.
    """

    sweep: str
    value: str | int
    runs: list[dict[str, float]]
    ids: list[str]

    def mean(self, metric: str) -> float:
        """Mean over seeds."""
        return fmean(run[metric] for run in self.runs)

    def deviation(self, metric: str) -> float:
        """Standard deviation over seeds, 0 with one."""
        return stdev(run[metric] for run in self.runs) if len(self.runs) > 1 else 0.0


def headline(stages: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What a pipeline run says about its mapper: held-out losses, retrieval and pictures."""
    found = {"l_g": stages["mapper"]["validation_l_g"]}
    found |= {
        name: stages["adapters"][f"validation_{name}"]
        for name in ("t2i_r1", "t2i_r10")
        if f"validation_{name}" in stages["adapters"]
    }
    return found | {
        name.removeprefix("gill_"): value
        for name, value in stages["evaluate"].items()
        if name.startswith("gill_") and "_minus_" not in name and not name.endswith(("_se", "_sd"))
    }


def metrics_of(points: Sequence[Point]) -> list[str]:
    """The metrics that every run has."""
    return [m for m in points[0].runs[0] if all(m in run for p in points for run in p.runs)]


def as_table(points: Sequence[Point]) -> str:
    """A Markdown table: mean and standard deviation over seeds."""
    metrics = metrics_of(points)
    lines = ["| sweep | value | seeds | " + " | ".join(metrics) + " |"]
    lines.append("|---" * (3 + len(metrics)) + "|")
    for point in points:
        cells = [f"{point.mean(m):.4f} ± {point.deviation(m):.4f}" for m in metrics]
        lines.append(f"| {point.sweep} | {point.value} | {len(point.runs)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plots(points: Sequence[Point]) -> dict[str, Figure]:
    """For each sweep a figure with a panel for each metric; bars are deviations over seeds."""
    from matplotlib.figure import Figure

    figures = {}
    metrics = metrics_of(points)
    for sweep in dict.fromkeys(p.sweep for p in points):
        members = [p for p in points if p.sweep == sweep]
        columns = min(3, len(metrics))
        rows = -(-len(metrics) // columns)
        figure = Figure(figsize=(3.6 * columns, 2.8 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for unused in panels[len(metrics) :]:
            unused.remove()
        for axes, metric in zip(panels[: len(metrics)], metrics, strict=True):
            axes.errorbar(
                [str(p.value) for p in members],
                [p.mean(metric) for p in members],
                [p.deviation(metric) for p in members],
                fmt="o" if isinstance(members[0].value, str) else "o-",
                capsize=4,
            )
            axes.margins(x=0.15)
            axes.set(title=metric.replace("_", " "), xlabel=sweep)
        figures[sweep.replace(".", "_")] = figure
    return figures


def record(points: Sequence[Point], parameters: Mapping[str, Any]) -> str:
    """Write table and plots to an MLflow run and to ``var/ablation``; returns the run's id."""
    run_id = tracking.start_run("ablation", {"kind": "ablation"})
    folder = var_folder() / "ablation"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        log = tracking.MlflowStageLog(run_id, tracking.logger)
        tracking.log_params(run_id, parameters)
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
                tracking.log_metrics(run_id, values)
        write_json(
            folder / "points.json",
            [{"sweep": p.sweep, "value": p.value, "mlflow_runs": p.ids, "runs": p.runs}
             for p in points],
        )  # fmt: skip
    except BaseException:
        tracking.end_run(run_id, "FAILED")
        raise
    tracking.end_run(run_id, "FINISHED")
    return run_id
