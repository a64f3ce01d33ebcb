"""What a stage gets beside its inputs. It knows no Prefect, since workers of a stage need none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from data.artifacts import Artifact
from tasks.config.base import Config
from tasks.config.parts import PartsConfig, RuntimeConfig
from tasks.tracking.stage_log import StageLog

Config_co = TypeVar("Config_co", bound=Config, covariant=True)


@dataclass(frozen=True)
class StageContext(Generic[Config_co]):
    """What a stage gets beside its inputs: nothing outside ``out`` is written.

    Attributes:
        config: its own configuration. parts: the frozen parts. runtime: device and threads.
        out: a folder that an earlier, killed process may have begun to fill.
        log: where metrics, images and progress go.
        shards: the image shards to convert; empty for all. A worker of a cluster gets some.
        identity: hash of all that bears on the stage but its inputs; empty where nobody says.
        donors: finished artifacts of the stage, whose shards of the same may be taken over.
        earlier: the artifact that this one begins with, for a stage that declares ``begins_with``.
    """

    config: Config_co
    parts: PartsConfig
    runtime: RuntimeConfig
    out: Path
    log: StageLog
    shards: tuple[str, ...] = ()
    earlier: Artifact | None = None
    identity: str = ""
    donors: tuple[Path, ...] = ()
