"""Sections of the report: metrics by suite, stories and dialogues, and their images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from gill.evaluation.published import (
    DECISION_HUMANS,
    DECISION_RELEASED,
    STORY_CONTEXTS,
    VIST,
)
from tasks.evaluation.context_scores import (
    SIMILARITY,
    ContextScores,
    Difference,
    differences,
    measures_of,
)
from tasks.evaluation.generated_images import TO_TRUE
from tasks.evaluation.rendering import Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES = {
    "told_story": "Stories whose cast is told (embedded world)",
    "shown_story": "Stories whose cast is only shown (embedded world)",
    "told_dialogue": "Dialogues (embedded world)",
    "vist": "VIST",
    "visdial": "VisDial",
}
_BASELINES = ("majority", "always_generate", "always_retrieve", "score_threshold")


def measured(metrics: Mapping[str, float]) -> list[Section]:
    """Decisions, generation, captioning and retrieval, as far as they were measured."""
    sections = [_decisions(metrics), _generation(metrics)]
    for title, prefix in (("Captioning", "caption_"), ("Retrieval", "retrieval_")):
        found = [(k.removeprefix(prefix), v) for k, v in metrics.items() if k.startswith(prefix)]
        if found:
            sections.append(Section(title, tables=[Table(("measure", "here"), found)]))
    return [section for section in sections if section]


def _decisions(metrics: Mapping[str, float]) -> Section | None:
    if "decision_macro_f1" not in metrics:
        return None
    low, high = metrics["decision_macro_f1_low"], metrics["decision_macro_f1_high"]
    ours = f"{metrics['decision_macro_f1']:.3f} (95 per cent: {low:.3f} to {high:.3f})"
    table = Table(
        ("answer", "published", "here"),
        (
            ("agreement of people", DECISION_HUMANS, None),
            ("decision model", DECISION_RELEASED, ours),
            *((name.replace("_", " "), None, metrics[f"decision_{name}_macro_f1"])
              for name in _BASELINES),
        ),
    )  # fmt: skip
    return Section("Decisions, macro F1", tables=[table])


def _generation(metrics: Mapping[str, float]) -> Section | None:
    suffix = f"_{TO_TRUE}"
    sets = [name.removesuffix(suffix) for name in metrics if name.endswith(suffix)]
    if not sets:
        return None
    measures = [
        name.removeprefix("gill_")
        for name in metrics
        if name.startswith("gill_") and not name.startswith("gill_minus_")
        and not name.endswith(("_se", "_sd"))
    ]  # fmt: skip
    table = Table(
        ("conditioning", *measures),
        [(name.replace("_", " "), *(_with_error(metrics, f"{name}_{m}") for m in measures))
         for name in sets],
    )  # fmt: skip
    return Section(
        "Generation from held-out captions",
        [
            "In the paper the kinds of mapper are level here, on captions like those of training; "
            "long multimodal contexts tell them apart. Brackets hold standard errors over "
            "captions, or deviations over seeds where there are several."
        ],
        [table],
    )


def _with_error(metrics: Mapping[str, float], name: str) -> str | None:
    if name not in metrics:
        return None
    error = metrics.get(f"{name}_sd", metrics.get(f"{name}_se"))
    return f"{metrics[name]:.3f}" + (f" ({error:.3f})" if error is not None else "")


def context_scores(rows: Sequence[ContextScores]) -> list[Section]:
    """The paper's figures of VIST, then each suite of stories or dialogues that was run."""
    head = ("model", *(f"{m}, {c}" for m in ("CLIP similarity", "LPIPS") for c in STORY_CONTEXTS))
    published = [(name, *found["similarity"], *found["lpips"]) for name, found in VIST.items()]
    title = "VIST: the last image of a story, published"
    sections = [Section(title, tables=[Table(head, published)])]
    if not any(row.suite == "vist" for row in rows):
        sections.append(Section("", ["VIST was not part of this run (evaluate.suites)."]))
    for suite, group in groupby(rows, lambda row: row.suite):
        sections.append(_suite(suite, list(group)))
    return sections


def _suite(suite: str, rows: Sequence[ContextScores]) -> Section:
    contexts = list(dict.fromkeys(row.context for row in rows))
    cases, seeds = len(rows[0].keys), max(len(row.values[SIMILARITY]) for row in rows)
    by_model: defaultdict[str, dict[str, ContextScores]] = defaultdict(dict)
    for row in rows:
        by_model[row.model][row.context] = row
    tables = [
        Table(
            (measure.replace("_", " "), *contexts),
            [(model, *(_cell(found.get(context), measure) for context in contexts))
             for model, found in by_model.items()],
        )
        for measure in measures_of(rows)
    ]  # fmt: skip
    note = f"{cases} cases, {seeds} seeds; brackets hold the deviation over seeds of the mean."
    return Section(f"{_TITLES[suite]}, here", [note], tables)


def _cell(row: ContextScores | None, measure: str) -> str | None:
    if row is None or measure not in row.values:
        return None
    return f"{row.mean(measure):.3f} ({row.deviation(measure):.4f})"


def context_effects(rows: Sequence[ContextScores]) -> list[Section]:
    """What longer contexts change, and GILL against the generator alone."""
    if not rows:
        return []
    lines = [
        (d.suite, d.what, d.measure, f"{d.mean:+.4f}", f"{d.error:.4f}", _verdict(d))
        for d in differences(rows)
    ]
    return [
        Section(
            "Does context help?",
            [
                "Paired differences over cases, seeds averaged. The error is the standard error "
                "over cases; a difference of less than two errors is called none."
            ],
            [Table(("suite", "difference", "measure", "mean", "error", ""), lines)],
        )
    ]


def _verdict(found: Difference) -> str:
    if abs(found.mean) < 2 * found.error or found.mean == 0:
        return "none"
    better = (found.mean > 0) != found.measure.endswith(("distance", "lpips"))
    return "better" if better else "worse"


def context_gallery(suite: str, rows: Sequence[ContextScores], count: int) -> list[Section]:
    """The first cases, and those where GILL with the longest context fits least."""
    longest = [row for row in rows if row.model == "gill"][-1:]
    first = range(min(count, len(rows[0].keys)))
    sections = [Section(f"{_TITLES[suite]}: images", tables=[_images(rows, first)])]
    if longest:
        worst = longest[0].values[SIMILARITY].mean(0).argsort().tolist()
        note = (
            f"Cases in which the images of GILL with {longest[0].context} are least like the "
            "true ones, by the scorer."
        )
        table = _images(rows, worst[:count])
        sections.append(Section(f"{_TITLES[suite]}: the worst", [note], [table]))
    return sections


def _images(rows: Sequence[ContextScores], cases: Sequence[int]) -> Table:
    shown = sorted(rows, key=lambda row: row.model != "truth")  # the truth first
    texts = [max((row.texts[i] for row in rows), key=len) for i in cases]
    names = (r.model if r.model == "truth" else f"{r.model}, {r.context}" for r in shown)
    return Table(
        ("case", "text", *names),
        [(rows[0].keys[i], text, *(r.images[i] for r in shown))
         for i, text in zip(cases, texts, strict=True)],
    )  # fmt: skip


def context_plot(rows: Sequence[ContextScores]) -> Figure:
    """A panel for each measure: means over the contexts; bars are deviations over seeds."""
    from matplotlib.figure import Figure

    measures = measures_of(rows)
    figure = Figure(figsize=(4.5 * len(measures), 3.4), layout="constrained")
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        for model in dict.fromkeys(row.model for row in rows if row.model != "truth"):
            own = [row for row in rows if row.model == model]
            axes.errorbar(
                [row.context for row in own],
                [row.mean(measure) for row in own],
                [row.deviation(measure) for row in own],
                fmt="o-",
                capsize=4,
                label=model,
            )
        axes.set_title(measure.replace("_", " "))
        axes.margins(x=0.15)
    panels[0].legend()
    return figure
