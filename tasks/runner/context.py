"""What a stage gets. Apart from ``tasks/stage.py``, since processes of a stage need no Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from data.artifacts import Artifact
from tasks.config.parts import PartsConfig, RuntimeConfig
from tasks.tracking.stage_log import StageLog


@dataclass(frozen=True)
class StageContext:
    """What a stage gets: nothing else is read and nothing outside ``out`` is written.

    Attributes:
        config: its own configuration. parts: the frozen parts. runtime: device and threads.
        inputs: the artifacts it needs, by stage.
        out: a folder that an earlier, killed process may have begun to fill.
        log: where metrics, images and progress go.
        shards: the image shards to convert; empty for all. A worker of a cluster gets some.
    """

    config: Any
    parts: PartsConfig
    runtime: RuntimeConfig
    inputs: Mapping[str, Artifact]
    out: Path
    log: StageLog
    shards: tuple[str, ...] = ()


Kind = TypeVar("Kind", bound=Artifact)


def of_kind(kind: type[Kind], artifact: Artifact) -> Kind:
    """An artifact as its kind, with the readers of that."""
    return kind(artifact.stage, artifact.fingerprint, artifact.path)
