"""A rehearsal's figures: as a table with what they assume, and as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flows.rehearsal.estimate import Estimate, Measured
from flows.rehearsal.sizes import Rehearsal
from flows.rehearsal.work import CAPTION_TOKENS


def described(
    rehearsal: Rehearsal,
    measured: Mapping[str, Measured],
    estimated: Mapping[str, Estimate],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """All of it as plain values, for scripts."""
    return {
        "recipe": rehearsal.recipe,
        "machine": dict(machine),
        "cut": rehearsal.cut(),
        "pairs": {"rehearsed": asdict(rehearsal.pairs), "whole": asdict(rehearsal.whole)},
        "stages": {
            name: {"rehearsed": asdict(stage), "whole": asdict(estimated[name])}
            for name, stage in measured.items()
        },
        "whole": {
            "seconds": sum(e.seconds for e in estimated.values()),
            "bytes": sum(e.bytes for e in estimated.values()),
        },
        "assumptions": assumptions(rehearsal),
    }


def assumptions(rehearsal: Rehearsal) -> list[str]:
    """What the extrapolation rests on, in words."""
    cut = rehearsal.cut()
    return [
        f"Rehearsed: {'; '.join(cut) if cut else 'the parts as published'}, random weights; "
        f"{rehearsal.pairs.total} pairs, {rehearsal.steps} steps of each training, "
        f"{rehearsal.sampler_steps} of the sampler. All else is the recipe's own.",
        f"The whole run: {rehearsal.whole.total:,} pairs, read from tars on this machine's disk; "
        " a download is bound by the line.",
        "Seconds: a unit of work takes as many times longer as its matrix products have more "
        f"operations in the published parts (captions of {CAPTION_TOKENS} tokens); the steps' rate "
        "is that after the first step. What is left of a stage, loading and summing up, is counted "
        "once. A validated pair takes half of a trained one, in the mapper a third.",
        "Bytes: tables grow with their rows. Host memory: what was measured, the weights that were "
        "cut, and the tables that a stage holds. GPU memory: activations of a training grow with "
        "the layers.",
        "One stage at a time, on this machine and its devices; stages of `gill run` overlap where "
        "the DAG lets them.",
    ]


def table(
    rehearsal: Rehearsal,
    measured: Mapping[str, Measured],
    estimated: Mapping[str, Estimate],
    machine: Mapping[str, Any],
) -> str:
    """The figures for people."""
    from rich.console import Console
    from rich.table import Table

    lines = Table("stage", title=f"{rehearsal.recipe}, rehearsed and as a whole")
    for name in (
        "s",
        "MB",
        "peak host GB",
        "GPU GB",
        "whole: work",
        "time",
        "GB",
        "host GB",
        "GPU GB",
    ):
        lines.add_column(name, justify="right")
    for name, took in measured.items():
        whole = estimated[name]
        lines.add_row(
            name,
            f"{took.seconds:.1f}",
            f"{(took.tables + took.others) / 1e6:.1f}",
            _giga(took.host),
            _giga(took.gpu),
            f"{whole.amount:,.0f} {whole.unit}",
            duration(whole.seconds),
            _giga(whole.bytes),
            _giga(whole.host),
            _giga(whole.gpu),
        )
    lines.add_section()
    lines.add_row(
        "all",
        f"{sum(m.seconds for m in measured.values()):.1f}",
        f"{sum(m.tables + m.others for m in measured.values()) / 1e6:.1f}",
        _giga(max(m.host for m in measured.values())),
        _giga(max((m.gpu or 0.0 for m in measured.values()), default=0.0) or None),
        "",
        duration(sum(e.seconds for e in estimated.values())),
        _giga(sum(e.bytes for e in estimated.values())),
        _giga(max(e.host for e in estimated.values())),
        "",
    )
    console = Console(width=132)
    with console.capture() as captured:
        console.print(lines)
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    where = (
        f"on {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB, {gpus}, PyTorch {machine['torch']}, "
        f"load {', '.join(map(str, machine['load']))} at the end"
    )
    return "\n".join([captured.get().rstrip(), where, *(f"- {a}" for a in assumptions(rehearsal))])


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would use."""
    for name, length in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {name}"
    return f"{seconds:.0f} s"


def _giga(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:,.1f}"
