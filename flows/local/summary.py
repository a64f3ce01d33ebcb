"""What came out of a run: a table of its stages, or why it failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.runner.run_records import RUNNING


def table_of(summary: dict[str, Any]) -> str:
    """The stages of a run with their headline metrics, as text."""
    from rich.console import Console
    from rich.table import Table

    from tasks.runner.registry import stage_named

    table = Table("stage", "", "seconds", "headline metrics")
    for name, stage in summary["stages"].items():
        shown = [
            f"{key} {stage['metrics'][key]:.3g}"
            for key in stage_named(name).declared.headlines
            if key in stage["metrics"]
        ]
        table.add_row(name, stage["status"], f"{stage['seconds']:.1f}", ", ".join(shown))
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def failure_of(summary: Path, words: str) -> str | None:
    """Why a run that has ended did not succeed, from its summary and Prefect's last words of it."""
    told = json.loads(summary.read_text()) if summary.exists() else {"state": RUNNING}
    if told["state"] == RUNNING:
        return f"the process of the run was killed (out of memory?) or never began: {words}"
    if told["state"] == "completed":
        return None
    return f"the run failed: {told['error'] or words}"
