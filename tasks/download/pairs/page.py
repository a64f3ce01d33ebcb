"""The report of the pairs as a page to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.evaluation.rendering import Section, Table, as_html

_NAMED = 50  # of a kind that a table names; pairs.json has more
_FIGURES = ("similarity", "words", "short_side")
_HEAD = ("split", "pairs", "figure", "mean", "1 %", "5 %", "25 %", "50 %", "75 %", "95 %", "99 %")


def page(report: Mapping[str, Any]) -> str:
    """HTML of what ``pairs.json`` holds."""
    splits, again = report["splits"], report["comes_again"]
    figures = [
        [split, of["pairs"], name, *of[name].values()]
        for split, of in splits.items()
        for name in _FIGURES
        if of[name]
    ]
    hosts = [
        f"{split}: {_counts(of['scripts'])}."
        + (f" Hosts: {_counts(of['hosts'])}." * bool(of["hosts"]))
        for split, of in splits.items()
    ]
    leaks = report["leaks"]
    named = [[*pair, kind] for kind, of in again.items() for pair in of["named"][:_NAMED]]
    return as_html(
        "The pairs",
        [
            Section(
                "",
                [
                    f"Not trained on: {_counts(report['dropped'])}.",
                    f"Similarity of caption and image: {report['similarity']}. Sample: "
                    f"{_counts({split: of['sampled'] for split, of in splits.items()})} pairs.",
                ],
                [Table(_HEAD, figures), *_histogram(splits)],
            ),
            Section("Scripts and hosts", hosts),
            Section(
                "Held-out images that are training images, or nearly so",
                [f"{len(leaks)}, by one measure or several{_first(len(leaks))}."],
                [Table(("held out", "training image", "alike by"), leaks[:_NAMED])]
                if leaks
                else [],
            ),
            Section(
                "Images that come again",
                [f"{of['what']}: {_counts(of['counts'])}." for of in again.values()],
                [Table(("image", "comes again as", "measure", "alike by"), named)] if named else [],
            ),
        ],
    )


def _histogram(splits: Mapping[str, Any]) -> list[Table]:
    """The similarities of the sample, a column for each split."""
    counts = {split: of["similarity_histogram"] for split, of in splits.items()}
    bounds = sorted({bound for of in counts.values() for bound in of}, key=float)
    rows = [[bound, *(of.get(bound, 0) for of in counts.values())] for bound in bounds]
    return [Table(("similarity from", *counts), rows)] if rows else []


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _first(count: int) -> str:
    return f"; the first {_NAMED} are named here, all in pairs.json" if count > _NAMED else ""
