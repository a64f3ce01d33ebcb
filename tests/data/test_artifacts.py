"""Artifacts: what is damaged is found and named, and each kind reads its own folder."""

import numpy as np
import pyarrow as pa
import pytest

from data import schemas
from data.artifacts import (
    Artifact,
    ClipFeatures,
    TextTargets,
    TrainedAdapters,
    TrainedJointly,
    TrainedMapper,
)
from data.io.journal import contents
from data.manifest import DamagedArtifactError, Manifest, described, write_manifest
from data.shards import as_bytes, write_shard


@pytest.fixture
def artifact(tmp_path):
    (tmp_path / "b.bin").write_bytes(b"xyz")
    files = described(tmp_path, {"b.bin": contents(tmp_path / "b.bin")})
    manifest = Manifest("mapper", 1, "f00", {}, {}, {"l_g": 1.5}, files)
    write_manifest(tmp_path, manifest)
    return Artifact("mapper", "f00", tmp_path)


def test_the_metrics_are_those_of_the_manifest(artifact):
    assert artifact.metrics == {"l_g": 1.5}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"stage": 1}'])
def test_a_manifest_that_cannot_be_read_is_named_with_the_remedy(artifact, data):
    (artifact.path / "manifest.json").write_bytes(data)
    with pytest.raises(DamagedArtifactError, match=r"manifest.json: .*gill run") as caught:
        artifact.manifest()
    assert str(artifact.path) in str(caught.value)


def test_a_missing_file_names_the_stage_to_run(artifact):
    with pytest.raises(DamagedArtifactError, match="gill run mapper"):
        artifact.file("nothing.bin")


def test_each_kind_reads_what_its_stage_wrote(tmp_path):
    write_shard(
        tmp_path / "features" / "train-00000.parquet",
        pa.table(
            [pa.array(["a"]), as_bytes(np.zeros((1, 6), np.float16))], schema=schemas.features(6)
        ),
    )
    features = ClipFeatures("clip_features", "f", tmp_path)
    assert features.names("train") == ["train-00000.parquet"]
    assert features.names("test") == []
    assert features.dim == 6
    write_shard(
        tmp_path / "targets" / "train-00000.parquet", schemas.text_targets(3, 8, 4).empty_table()
    )
    assert TextTargets("text_targets", "f", tmp_path).shape == (3, 8)
    write_shard(tmp_path / "features" / "test-00000.parquet", schemas.IMAGES.empty_table())
    with pytest.raises(schemas.SchemaError, match="not features"):
        features.read("test-00000.parquet")


def test_a_joint_artifact_is_both(tmp_path):
    joint = TrainedJointly.made(tmp_path / "joint" / "f00.partial", {"l_g": 2.0})
    assert isinstance(joint, TrainedAdapters)
    assert isinstance(joint, TrainedMapper)
    assert (joint.stage, joint.fingerprint, joint.metrics) == ("joint", "f00", {"l_g": 2.0})
    with pytest.raises(DamagedArtifactError, match="gill run joint"):
        joint.adapters_spec()
