"""What is on the disk of each run: ``runs/<flow run>.json``, written when it begins and ends.

A record that says ``running`` and whose process is gone is that of a run that was killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data.artifacts import Artifact
from data.io.atomic import write_json
from tasks.paths import LAST_RUN, var_folder
from tasks.tracking.mlflow_runs import is_lost, process_identity

RUNNING = "running"


@dataclass(frozen=True)
class RunRecord:
    """A run as its record says.

    Attributes:
        described: the whole record. changed: when it was written last, seconds since 1970.
    """

    described: Mapping[str, Any]
    changed: float

    @property
    def artifacts(self) -> list[str]:
        """Names of the artifacts that it makes or reuses."""
        return [f"{stage}/{one['fingerprint']}" for stage, one in self.described["stages"].items()]

    @property
    def under_way(self) -> bool:
        """Whether its process is there; also one of another machine, which nothing here tells."""
        return self._running and not is_lost(str(self.described["process"]))

    @property
    def killed(self) -> bool:
        """Whether its process ended without a word."""
        return self._running and is_lost(str(self.described["process"]))

    @property
    def _running(self) -> bool:
        return self.described["state"] == RUNNING


def write_begun(described: Mapping[str, Any], artifacts: Iterable[Artifact]) -> None:
    """Say that this process begins a run, and which artifacts are to come of it.

    Args:
        described: what is known of it; ``flow_run_id`` names the record.
    """
    stages = {artifact.stage: {"fingerprint": artifact.fingerprint} for artifact in artifacts}
    begun = {
        **described,
        "state": RUNNING,
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "process": process_identity(os.getpid()),
        "stages": stages,
    }
    write_json(_path(described), begun)


def write_ended(described: Mapping[str, Any]) -> None:
    """Say how a run ended, under its own name, since several may end at once, and as the last."""
    for path in (var_folder() / LAST_RUN, _path(described)):
        write_json(path, described)


def run_records() -> Iterator[RunRecord]:
    """Every run of this ``var`` folder of which there is a record that can be read."""
    for path in sorted((var_folder() / "runs").glob("*.json")):
        try:
            described = json.loads(path.read_bytes())
            record = RunRecord(described, path.stat().st_mtime)
            _ = record.artifacts, record.under_way
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # it says nothing; what it names stays if anything else needs it
        yield record


def _path(described: Mapping[str, Any]) -> Path:
    return var_folder() / "runs" / f"{described['flow_run_id']}.json"
