"""The store of artifacts: ``<stage>/<fingerprint>`` under ``var/store``."""

from __future__ import annotations


import hashlib
import importlib
import json
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from filelock import FileLock, Timeout
from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import ExternalSignal
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed
from data.artifacts import (
    MANIFEST,
    Artifact,
    Manifest,
    describe_files,
    problems_of,
    write_json,
    write_manifest,
)
from tasks.runner import launcher
from tasks.config.base import Frozen
from tasks.config.parts import PartsConfig, RuntimeConfig
from tasks.config.data import SharedOut
from tasks.runner.context import StageContext
from tasks.runner.fan_out import convert_on_workers
from tasks.parts.loading import LOADING
from tasks.parts.identity import identity
from tasks.tracking.memory import release_memory
from tasks.paths import var_folder
from tasks.runner.registry import SCHEDULES, STAGES, Stage, ancestors, stage_named, stages_of
from tasks.runner.execution import fingerprint


class MissingArtifactError(RuntimeError):
    """A stage was to run alone and one of its inputs has not been made."""

    def __init__(self, wanted: str, missing: str) -> None:
        super().__init__(
            f"{wanted} needs the artifact of {missing} with this configuration, and there is none. "
            f"Run `prefect deployment run gill/{missing} --watch` (with the same recipe and "
            "overrides) or the full pipeline first."
        )


class DiskFullError(OSError):
    """Too little room is left to start a stage."""


def store_folder() -> Path:
    """Where artifacts are kept: ``<stage>/<fingerprint>``."""
    return var_folder() / "store"


def find(stage: str, mark: str) -> Artifact | None:
    """The finished artifact of a fingerprint, or None. Its files are not checked here."""
    path = store_folder() / stage / mark
    return Artifact(stage, mark, path) if (path / MANIFEST).exists() else None


def reopen(artifact: Artifact, damaged: Collection[str]) -> None:
    """Turn a damaged artifact back into unfinished work, so that its whole files are kept."""
    for name in damaged:
        (artifact.path / name).unlink(missing_ok=True)
    (artifact.path / MANIFEST).unlink()
    partial = artifact.path.with_name(f"{artifact.fingerprint}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    artifact.path.rename(partial)
