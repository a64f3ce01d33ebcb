"""Artifacts: the folders that stages make, each described by a manifest that is written last.

They are the edges of the DAG. There is a class for each kind: where its files lie and how they are
read. A stage takes and returns them; it knows nothing else of the stages before and after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.parquet as pq

from data import schemas
from data.manifest import DamagedArtifactError, Manifest, read_manifest
from data.shards import KEPT, read_table, shard_names


@dataclass(frozen=True)
class Artifact:
    """A finished folder: the edge between two stages. Small, so that it can pass between tasks.

    Attributes:
        stage: that made it, or is to make it.
        reported: its numbers while there is no manifest yet.
    """

    stage: str
    fingerprint: str
    path: Path
    reported: Mapping[str, float] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def made(cls, out: Path, metrics: Mapping[str, float]) -> Self:
        """What a stage returns: the folder ``<stage>/<fingerprint>`` it filled and its numbers."""
        return cls(out.parent.name, out.stem, out, dict(metrics))

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
        """Read the manifest.

        Raises:
            DamagedArtifactError: it is missing or not as it was written.
        """
        return read_manifest(self.path)

    @property
    def metrics(self) -> Mapping[str, float]:
        """The numbers its stage reported."""
        return self.manifest().metrics if self.reported is None else self.reported


class ShardedArtifact(Artifact):
    """An artifact whose rows lie in one folder of shards, which are named by split and number."""

    FOLDER: ClassVar[str]
    SCHEMA: ClassVar[str]
    # Further folders of shards that are made of the image shards alone, and by what.
    BESIDE: ClassVar[Mapping[str, str]] = {}

    @property
    def folder(self) -> Path:
        """Where the shards lie."""
        return self.file(self.FOLDER)

    def names(self, split: str | None = None) -> list[str]:
        """Names of the shards, of one split or of all."""
        return shard_names(self.folder, split)

    def read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a shard, or some columns of it."""
        return read_table(self.folder / name, columns, self.SCHEMA)


class ImageShards(ShardedArtifact):
    """Images with captions, and for each shard what was lost and an account of it."""

    FOLDER, SCHEMA = "images", "images"
    FAILURES: ClassVar[str] = "failures"
    STATS: ClassVar[str] = "stats"


class WithSelection(Artifact):
    """An artifact that may say which training pairs are trained on."""

    KEPT: ClassVar[str] = "kept"

    @property
    def selection(self) -> dict[Path, list[str]]:
        """What ``AlignedShards`` takes to leave out training pairs; empty where all are kept."""
        folder = self.path / self.KEPT
        return {folder: [KEPT]} if folder.exists() else {}


class ClipFeatures(ShardedArtifact, WithSelection):
    """Pooled vision features of each image."""

    FOLDER, SCHEMA = "features", "features"
    HASHES: ClassVar[str] = "hashes"
    BESIDE = {HASHES: "DCT hash, version 1"}  # noqa: RUF012

    @property
    def dim(self) -> int:
        """Width of a feature."""
        schema = pq.read_schema(self.folder / self.names()[0])
        return int(schema.field("feature").type.byte_width) // 2  # half precision


class TextTargets(ShardedArtifact):
    """The image generator's text-encoder output for each caption."""

    FOLDER, SCHEMA = "targets", "text_targets"

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens and width of a target."""
        return schemas.shape_of(pq.read_schema(self.folder / self.names()[0]))


class TrainedAdapters(WithSelection):
    """The adapters' weights, and the [IMG] states of the captions that these lead to."""

    ADAPTERS_WEIGHTS: ClassVar[str] = "adapters.safetensors"
    ADAPTERS_SPEC: ClassVar[str] = "adapters.json"
    STATES: ClassVar[str] = "states"

    @property
    def adapters_weights(self) -> Path:
        """The tensors of ``gill.model.Adapters``."""
        return self.file(self.ADAPTERS_WEIGHTS)

    @property
    def states(self) -> Path:
        """The folder with the shards of [IMG] states."""
        return self.file(self.STATES)

    def adapters_spec(self) -> dict[str, Any]:
        """The fields of ``gill.specs.AdapterSpec``."""
        return _read_json(self.file(self.ADAPTERS_SPEC))


class TrainedMapper(Artifact):
    """A mapper's weights, and those of the baselines that were trained beside it, by kind."""

    @staticmethod
    def mapper_weights_name(kind: str) -> str:
        """Name of the file with the tensors of a ``gill.mapper.Mapper``."""
        return f"{kind}.safetensors"

    @staticmethod
    def mapper_spec_name(kind: str) -> str:
        """Name of the file with the fields of a ``gill.specs.MapperSpec``."""
        return f"{kind}.json"

    @property
    def mapper_kind(self) -> str:
        """Kind of the mapper that is no baseline."""
        return str(self.manifest().config["kind"])

    @property
    def baseline_kinds(self) -> tuple[str, ...]:
        """Kinds of the others, which may repeat the first."""
        return tuple(self.manifest().config["baselines"])

    @property
    def decision(self) -> TrainedDecision | None:
        """The decision model that came with it, if it was imported with one."""
        beside = TrainedDecision(self.stage, self.fingerprint, self.path)
        return beside if (self.path / TrainedDecision.WEIGHTS).exists() else None

    def mapper_weights(self, kind: str) -> Path:
        """The tensors of a mapper."""
        return self.file(self.mapper_weights_name(kind))

    def mapper_spec(self, kind: str) -> dict[str, Any]:
        """The fields of a mapper's ``gill.specs.MapperSpec``."""
        return _read_json(self.file(self.mapper_spec_name(kind)))


class TrainedJointly(TrainedAdapters, TrainedMapper):
    """Adapters and a mapper of one training, or of a model that was imported."""


class RetrievalIndex(ShardedArtifact):
    """Unit vectors of the images that can be retrieved."""

    FOLDER, SCHEMA = "embeddings", "embeddings"


class TrainedDecision(Artifact):
    """The decision model's weights, its labels, and how well it decides."""

    WEIGHTS: ClassVar[str] = "decision.safetensors"
    SPEC: ClassVar[str] = "decision.json"
    LABELS: ClassVar[str] = "labels.json"
    SCORES: ClassVar[str] = "decision_scores.json"

    @property
    def weights(self) -> Path:
        """The tensors of ``gill.decision.DecisionModel``."""
        return self.file(self.WEIGHTS)

    def spec(self) -> dict[str, Any]:
        """The arguments of ``gill.decision.DecisionModel``."""
        return _read_json(self.file(self.SPEC))


class Evaluation(Artifact):
    """Held-out figures, a report of them, and the images that they were measured on."""

    METRICS: ClassVar[str] = "metrics.json"
    IMAGES: ClassVar[str] = "images"
    CONTEXTS: ClassVar[str] = "contexts"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        problem = {path.name: f"cannot be read: {error}"}
        raise DamagedArtifactError(path.parents[1].name, path.parent, problem) from error
