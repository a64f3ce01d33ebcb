"""The evaluation's report: what the suites found, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from data.io.atomic import write_bytes
from gill.evaluation.published import FINDINGS
from tasks.config.parts import PartsConfig
from tasks.evaluation.context_scores import ContextScores
from tasks.evaluation.rendering import Cell, Section, Table, as_html, as_markdown
from tasks.evaluation.report_sections import (
    context_effects,
    context_gallery,
    context_plot,
    context_scores,
    measured,
)
from tasks.tracking.stage_log import StageLog

TITLE = "Evaluation of GILL"
TITLES = {
    "decisions": "Held-out prompts: GILL's image, the retrieved one, and what it decides",
    "gallery": "Held-out captions: images by what they are made from",
}
_SHOWN = 12


class Report:
    """Collects what the suites found and writes it down.

    Args:
        parts: the frozen parts, which stand beside the paper's.
        out: the folder that the report is written to.
        log: where plots and documents go.
    """

    def __init__(self, parts: PartsConfig, out: Path, log: StageLog) -> None:
        self.parts, self.out, self.log = parts, out, log
        self._rows: list[ContextScores] = []
        self._galleries: list[Section] = []

    def contexts(self, rows: Sequence[ContextScores]) -> None:
        """Take the suites of stories and dialogues, with their images."""
        self._rows += rows
        for suite, group in groupby(rows, lambda row: row.suite):
            members = list(group)
            self._galleries += context_gallery(suite, members, _SHOWN)
            self.log.figure(suite, context_plot(members))

    def gallery(self, name: str, columns: Mapping[str, Sequence[Cell]]) -> None:
        """Take a gallery of held-out captions, ``decisions`` or ``gallery``."""
        self._galleries.append(Section(TITLES[name], tables=[_table(columns)]))

    def worst(self, columns: Mapping[str, Sequence[Cell]]) -> None:
        """Take the held-out captions that GILL's images fit least."""
        self._galleries.append(
            Section(
                "Held-out captions: the worst",
                ["The images of GILL that are least like the true ones, by the scorer."],
                [_table(columns)],
            )
        )

    def write(self, metrics: Mapping[str, float]) -> None:
        """Write ``report.html`` and ``report.md`` beside the stage's files and to MLflow."""
        sections = [
            _beside_the_paper(self.parts),
            *measured(metrics),
            *context_scores(self._rows),
            *context_effects(self._rows),
            Section("The paper's findings", FINDINGS),
            *self._galleries,
        ]
        for name, text in (
            ("report.html", as_html(TITLE, sections)),
            ("report.md", as_markdown(TITLE, sections)),
        ):
            write_bytes(self.out / name, text.encode())
            self.log.document(name, text)


def _beside_the_paper(parts: PartsConfig) -> Section:
    generator = parts.generator
    return Section(
        "",
        [
            "Published figures are the paper's: OPT-6.7B, CLIP ViT-L/14, Stable Diffusion 1.5, "
            "trained on CC3M. Ours are of the recipe below; where its parts or data differ, the "
            "two columns do not compare and stand together for orientation only. A measure is "
            "called FID, LPIPS or CLIP similarity only where the standard network made it."
        ],
        [
            Table(
                ("part", "paper", "here"),
                (
                    ("language model", "OPT-6.7B", parts.language.name),
                    ("vision encoder and scorer", "CLIP ViT-L/14", parts.vision.name),
                    ("image generator", "Stable Diffusion 1.5", generator.name),
                    ("sampler steps, guidance", "50, 7.5",
                     f"{generator.steps}, {generator.guidance_scale}"),
                ),
            )
        ],
    )  # fmt: skip


def _table(columns: Mapping[str, Sequence[Cell]]) -> Table:
    rows = list(zip(*columns.values(), strict=False))
    return Table(list(columns), rows[:_SHOWN])
