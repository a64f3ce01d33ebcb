"""The store of artifacts: ``<stage>/<fingerprint>`` under ``var/store``."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

from data.artifacts import MANIFEST, Artifact
from tasks.paths import var_folder

Made = TypeVar("Made", bound=Artifact)


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


def find(artifact: Made) -> Made | None:
    """An artifact if it is finished, or None. Its files are not checked here."""
    return artifact if (artifact.path / MANIFEST).exists() else None


def reopen(artifact: Artifact, damaged: Collection[str]) -> None:
    """Turn a damaged artifact back into unfinished work, so that its whole files are kept."""
    for name in damaged:
        (artifact.path / name).unlink(missing_ok=True)
    (artifact.path / MANIFEST).unlink()
    partial = artifact.path.with_name(f"{artifact.fingerprint}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    artifact.path.rename(partial)
