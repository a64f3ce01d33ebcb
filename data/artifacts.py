"""Artifacts: the folders that stages make, each described by a manifest that is written last."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
HASHED_UP_TO = 64 << 20  # larger files are checked by size on reuse; their readers check the rest


class DamagedArtifactError(RuntimeError):
    """Files of an artifact are missing or differ from its manifest."""

    def __init__(self, stage: str, path: Path, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        listed = "; ".join(f"{name}: {what}" for name, what in list(problems.items())[:5])
        super().__init__(
            f"the {stage} artifact at {path} is damaged ({len(problems)} files: {listed}). Run "
            f"`prefect deployment run gill/{stage}`: it rebuilds what is damaged."
        )


@dataclass(frozen=True)
class Manifest:
    """What a finished artifact is and how it came to be."""

    stage: str
    version: int
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    metrics: dict[str, float]
    files: dict[str, dict[str, Any]]
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A finished folder: the edge between two stages. Small, so that it can pass between tasks."""

    stage: str
    fingerprint: str
    path: Path

    def file(self, name: str) -> Path:
        """Path of one of its files.

        Raises:
            DamagedArtifactError: the file is gone.
        """
        path = self.path / name
        if not path.exists():
            raise DamagedArtifactError(self.stage, self.path, {name: "missing"})
        return path

    def manifest(self) -> Manifest:
        """Read the manifest."""
        return Manifest(**json.loads((self.path / MANIFEST).read_text()))

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers its stage reported."""
        return self.manifest().metrics


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def problems_of(folder: Path, manifest: Manifest) -> dict[str, str]:
    """What is wrong with the files of an artifact: empty when all is well."""
    found: dict[str, str] = {}
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.exists():
            found[name] = "missing"
        elif path.stat().st_size != expected["bytes"]:
            found[name] = f"{path.stat().st_size} bytes, not {expected['bytes']}"
        elif expected["bytes"] <= HASHED_UP_TO and sha256_of(path) != expected["sha256"]:
            found[name] = "other contents"
    return found


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as handle:
        json.dump(value, handle, indent=2)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, which makes the folder an artifact once it is renamed."""
    write_json(folder / MANIFEST, asdict(manifest))
