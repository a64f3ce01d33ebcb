"""The runs at hand: which stages are done, which work and how far, which wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil

from data.io.journal import PARTIAL
from data.manifest import MANIFEST
from tasks.runner.housekeeping import is_locked
from tasks.runner.run_records import RunRecord, run_records
from tasks.runner.store import store_folder
from tasks.tracking.progress import read_progress

State = Literal["done", "works", "unfinished", "waits"]


@dataclass(frozen=True)
class StageStatus:
    """A stage of a run.

    Attributes:
        state: unfinished is what a process has begun and no process works on.
        progress: ``done`` of ``total`` ``unit``, ``rate`` a second, ``seconds_left`` or None, and
            the last ``metrics``; empty where the stage has said nothing yet.
    """

    stage: str
    state: State
    progress: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunStatus:
    """A run.

    Attributes:
        state: running, killed, completed or failed. error: why it failed. began: UTC.
        memory_bytes: resident, of its process and all that this has started; None where the
            process is gone or not of this machine.
    """

    flow_run_id: str
    recipe: str
    stage: str | None
    state: str
    error: str
    began: str
    memory_bytes: int | None
    stages: tuple[StageStatus, ...]


def runs_at_hand() -> list[RunStatus]:
    """Runs that are under way; without any, the one whose record was written last, if there is one.

    Reads the disk alone and needs no server.
    """
    records = sorted(run_records(), key=lambda record: record.changed)
    under_way = [record for record in records if record.under_way]
    return [_described(record) for record in under_way or records[-1:]]


def _described(record: RunRecord) -> RunStatus:
    told = record.described
    return RunStatus(
        str(told["flow_run_id"]),
        str(told["recipe"]),
        told.get("stage"),
        "killed" if record.killed else str(told["state"]),
        str(told.get("error") or ""),
        str(told.get("began", "")),
        _memory(str(told["process"])) if record.under_way else None,
        tuple(_stages(record)),
    )


def _stages(record: RunRecord) -> Iterator[StageStatus]:
    for name in record.artifacts:
        stage, _, fingerprint = name.partition("/")
        path = store_folder() / stage / fingerprint
        work = path.with_name(f"{fingerprint}{PARTIAL}")
        if (path / MANIFEST).exists():
            yield StageStatus(stage, "done")
        elif is_locked(path):
            yield StageStatus(stage, "works", read_progress(work) or {})
        elif work.exists():
            yield StageStatus(stage, "unfinished", read_progress(work) or {})
        else:
            yield StageStatus(stage, "waits")


def _memory(process: str) -> int | None:
    """Resident bytes of a process by its mark, and of its descendants."""
    try:
        first = psutil.Process(int(process.split("/")[1]))
        members = [first, *first.children(recursive=True)]
    except (psutil.Error, ValueError, IndexError):
        return None
    held = 0
    for member in members:
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            held += int(member.memory_info().rss)
    return held
