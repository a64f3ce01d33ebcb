"""The evaluation's report, as HTML with images and as Markdown: the paper's figures and ours."""

from __future__ import annotations

import base64
import html
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from gill.evaluation.published import (
    DECISION_HUMANS,
    DECISION_RELEASED,
    FINDINGS,
    STORY_CONTEXTS,
    VIST,
)
from tasks.config.parts import PartsConfig
from tasks.evaluation.context_scores import SIMILARITY, ContextScores, Difference, differences
from tasks.evaluation.thumbnails import opened, thumbnail
from tasks.tracking.stage_log import StageLog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = str | float | Image.Image | bytes | None
_EDGE = 96  # of an image in the report, in pixels
_SHOWN = 12

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { border: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top }
th { background: #f3f3f3 } td.number { text-align: right; font-variant-numeric: tabular-nums }
img { width: 96px; height: 96px; object-fit: contain }
"""


@dataclass(frozen=True)
class Table:
    """A table with a head; images are shown in HTML and left out in Markdown."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


Block = str | Table
"""A heading (it begins with ``## ``), a paragraph, or a table."""


class Report:
    """Collects what the suites found and writes it down."""

    def __init__(self, parts: PartsConfig, out: Path, log: StageLog) -> None:
        self.parts, self.out, self.log = parts, out, log
        self._rows: list[ContextScores] = []
        self._galleries: list[Block] = []

    def contexts(self, rows: Sequence[ContextScores]) -> None:
        """Take the suites of stories and dialogues, with their images."""
        self._rows += rows
        for suite, group in groupby(rows, lambda row: row.suite):
            members = list(group)
            self._galleries += _context_gallery(suite, members)
            self.log.figure(suite, plot(members))

    def gallery(self, columns: Mapping[str, Sequence[Cell]]) -> None:
        """Take the gallery of the held-out captions."""
        self._galleries += ["## Held-out captions", _table(columns, _SHOWN)]

    def worst(self, columns: Mapping[str, Sequence[Cell]]) -> None:
        """Take the held-out captions that GILL's images fit least."""
        self._galleries += [
            "## Held-out captions: the worst",
            "The images of GILL that are least like the true ones, by the scorer.",
            _table(columns, _SHOWN),
        ]

    def write(self, metrics: Mapping[str, float]) -> None:
        """Write ``report.html`` and ``report.md`` beside the stage's files and to MLflow."""
        blocks = [*self._head(), *_figures(metrics), *_stories(self._rows), *_found(self._rows)]
        blocks += ["## The paper's findings", *FINDINGS]
        blocks += self._galleries
        for name, text in (
            ("report.html", as_html("Evaluation of GILL", blocks)),
            ("report.md", as_markdown("Evaluation of GILL", blocks)),
        ):
            (self.out / name).write_text(text, encoding="utf-8")
            self.log.document(name, text)

    def _head(self) -> list[Block]:
        parts = self.parts
        return [
            "Published figures are the paper's: OPT-6.7B, CLIP ViT-L/14, Stable Diffusion 1.5, "
            "trained on CC3M. Ours are of the recipe below; where its parts or data differ, the "
            "two columns do not compare and stand together for orientation only. A measure is "
            "called FID, LPIPS or CLIP similarity only where the standard network made it.",
            Table(
                ("part", "paper", "here"),
                (
                    ("language model", "OPT-6.7B", parts.language.name),
                    ("vision encoder and scorer", "CLIP ViT-L/14", parts.vision.name),
                    ("image generator", "Stable Diffusion 1.5", parts.generator.name),
                    ("sampler steps, guidance", "50, 7.5",
                     f"{parts.generator.steps}, {parts.generator.guidance_scale}"),
                ),
            ),
        ]  # fmt: skip


def _figures(metrics: Mapping[str, float]) -> list[Block]:
    blocks: list[Block] = []
    if "decision_macro_f1" in metrics:
        low, high = metrics["decision_macro_f1_low"], metrics["decision_macro_f1_high"]
        baselines = ("majority", "always_generate", "always_retrieve", "score_threshold")
        blocks += [
            "## Decisions, macro F1",
            Table(
                ("answer", "published", "here"),
                (
                    ("agreement of people", DECISION_HUMANS, None),
                    ("decision model", DECISION_RELEASED,
                     f"{metrics['decision_macro_f1']:.3f} (95 per cent: {low:.3f} to {high:.3f})"),
                    *((r.replace("_", " "), None, metrics[f"decision_{r}_macro_f1"])
                      for r in baselines),
                ),
            ),
        ]  # fmt: skip
    sets = [name.removesuffix("_image_image_similarity") for name in metrics
            if name.endswith("_image_image_similarity")]  # fmt: skip
    if sets:
        measures = [
            name.removeprefix("gill_")
            for name in metrics
            if name.startswith("gill_") and not name.startswith("gill_minus_")
            and not name.endswith(("_se", "_sd"))
        ]  # fmt: skip
        blocks += [
            "## Generation from held-out captions",
            "The paper: GILLMapper beats the linear map in FID and CLIP similarity. Brackets hold "
            "standard errors over captions, or deviations over seeds where there are several.",
            Table(
                ("conditioning", *measures),
                [(name.replace("_", " "), *(_with_error(metrics, f"{name}_{m}") for m in measures))
                 for name in sets],
            ),
        ]  # fmt: skip
    for title, prefix in (("Captioning", "caption_"), ("Retrieval", "retrieval_")):
        found = [(k.removeprefix(prefix), v) for k, v in metrics.items() if k.startswith(prefix)]
        if found:
            blocks += [f"## {title}", Table(("measure", "here"), found)]
    return blocks


def _with_error(metrics: Mapping[str, float], name: str) -> str | None:
    if name not in metrics:
        return None
    error = metrics.get(f"{name}_sd", metrics.get(f"{name}_se"))
    return f"{metrics[name]:.3f}" + (f" ({error:.3f})" if error is not None else "")


def _stories(rows: Sequence[ContextScores]) -> list[Block]:
    blocks: list[Block] = ["## VIST: the last image of a story, published"]
    head = ("model", *(f"{m}, {c}" for m in ("CLIP similarity", "LPIPS") for c in STORY_CONTEXTS))
    blocks.append(
        Table(head, [(n, *found["similarity"], *found["lpips"]) for n, found in VIST.items()])
    )
    if not any(row.suite == "vist" for row in rows):
        blocks.append("VIST was not part of this run (evaluate.suites).")
    for suite, group in groupby(rows, lambda row: row.suite):
        members = list(group)
        contexts = list(dict.fromkeys(row.context for row in members))
        cases, seeds = len(members[0].keys), max(len(row.values[SIMILARITY]) for row in members)
        blocks += [
            f"## {_TITLES[suite]}, here",
            f"{cases} cases, {seeds} seeds; brackets hold the deviation over seeds of the mean.",
        ]
        by_model: defaultdict[str, dict[str, ContextScores]] = defaultdict(dict)
        for row in members:
            by_model[row.model][row.context] = row
        for measure in members[0].values:
            table = [
                (model, *(_cell(found.get(context), measure) for context in contexts))
                for model, found in by_model.items()
            ]
            blocks.append(Table((measure.replace("_", " "), *contexts), table))
    return blocks


_TITLES = {
    "synthetic_story": "Context study in the form of VIST (images of the test split)",
    "synthetic_dialogue": "Context study in the form of VisDial (images of the test split)",
    "vist": "VIST",
    "visdial": "VisDial",
}


def plot(rows: Sequence[ContextScores]) -> Figure:
    """A panel for each measure: means over the contexts; bars are deviations over seeds."""
    from matplotlib.figure import Figure

    measures = list(rows[0].values)
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


def _cell(row: ContextScores | None, measure: str) -> str | None:
    if row is None:
        return None
    return f"{row.mean(measure):.3f} ({row.deviation(measure):.4f})"


def _found(rows: Sequence[ContextScores]) -> list[Block]:
    if not rows:
        return []
    lines = [
        (d.suite, d.what, d.measure, f"{d.mean:+.4f}", f"{d.error:.4f}", _verdict(d))
        for d in differences(rows)
    ]
    return [
        "## Does context help?",
        "Paired differences over cases, seeds averaged. The error is the standard error over "
        "cases; a difference of less than two errors is called none.",
        Table(("suite", "difference", "measure", "mean", "error", ""), lines),
    ]


def _verdict(found: Difference) -> str:
    if abs(found.mean) < 2 * found.error or found.mean == 0:
        return "none"
    better = (found.mean > 0) == found.measure.endswith("similarity")
    return "better" if better else "worse"


def _context_gallery(suite: str, rows: Sequence[ContextScores]) -> list[Block]:
    """The first cases, and those where GILL with the longest context fits least."""
    longest = [row for row in rows if row.model == "gill"][-1:]
    order = list(range(len(rows[0].keys)))
    blocks: list[Block] = [f"## {_TITLES[suite]}: images", _images(rows, order[:_SHOWN])]
    if longest:
        worst = longest[0].values[SIMILARITY].mean(0).argsort().tolist()
        blocks += [
            f"## {_TITLES[suite]}: the worst",
            f"Cases in which the images of GILL with {longest[0].context} are least like the "
            "true ones, by the scorer.",
            _images(rows, worst[:_SHOWN]),
        ]
    return blocks


def _images(rows: Sequence[ContextScores], cases: Sequence[int]) -> Table:
    shown = sorted(rows, key=lambda row: row.model != "truth")  # the truth first
    texts = [max((row.texts[i] for row in rows), key=len) for i in cases]
    head = (
        "case",
        "text",
        *(r.model if r.model == "truth" else f"{r.model}, {r.context}" for r in shown),
    )
    return Table(
        head,
        [(rows[0].keys[i], text, *(r.images[i] for r in shown))
         for i, text in zip(cases, texts, strict=True)],
    )  # fmt: skip


def _table(columns: Mapping[str, Sequence[Cell]], count: int) -> Table:
    rows = list(zip(*columns.values(), strict=False))
    return Table(list(columns), rows[:count])


def as_markdown(title: str, blocks: Sequence[Block]) -> str:
    """Markdown without images."""
    lines = [f"# {title}", ""]
    for block in blocks:
        if isinstance(block, str):
            lines += [block, ""]
            continue
        keep = [
            i for i in range(len(block.head))
            if not any(isinstance(row[i], Image.Image | bytes) for row in block.rows)
        ]  # fmt: skip
        lines.append(_line([block.head[i] for i in keep]))
        lines.append("|" + "---|" * len(keep))
        lines += [_line([_text(row[i]) for i in keep]) for row in block.rows]
        if len(keep) < len(block.head):
            lines += ["", "(The images are in report.html.)"]
        lines.append("")
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in cells) + " |"


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """One file with its images inside; all text from data is escaped."""
    lines = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
    ]
    for block in blocks:
        if isinstance(block, str):
            heading = block.startswith("## ")
            tag, text = ("h2", block.removeprefix("## ")) if heading else ("p", block)
            lines.append(f"<{tag}>{html.escape(text)}</{tag}>")
            continue
        lines.append("<table><tr>")
        lines += [f"<th>{html.escape(name)}</th>" for name in block.head]
        lines.append("</tr>")
        lines += ["<tr>" + "".join(map(_html, row)) + "</tr>" for row in block.rows]
        lines.append("</table>")
    return "\n".join([*lines, "</body></html>"])


def _html(cell: Cell) -> str:
    if isinstance(cell, Image.Image | bytes):
        image = opened(cell) if isinstance(cell, bytes) else cell
        code = base64.b64encode(thumbnail(image, _EDGE)).decode()
        return f"<td><img alt='' src='data:image/webp;base64,{code}'></td>"
    number = " class='number'" if isinstance(cell, float) else ""
    return f"<td{number}>{html.escape(_text(cell))}</td>"
