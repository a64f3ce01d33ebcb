"""Artifacts: what is damaged is found and named, and each kind reads its own folder."""

import numpy as np
import pyarrow as pa
import pytest

from data import schemas
from data.artifacts import (
    Artifact,
    ClipFeatures,
    DamagedArtifactError,
    Manifest,
    TextTargets,
    TrainedAdapters,
    TrainedJointly,
    TrainedMapper,
    describe_files,
    problems_of,
    write_manifest,
)
from data.shards import as_bytes, write_shard


@pytest.fixture
def artifact(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.bin").write_bytes(b"abc")
    (tmp_path / "b.bin").write_bytes(b"xyz")
    manifest = Manifest("mapper", 1, "f00", {}, {}, {"l_g": 1.5}, describe_files(tmp_path))
    write_manifest(tmp_path, manifest)
    return Artifact("mapper", "f00", tmp_path)


def test_a_whole_artifact_has_no_problems(artifact):
    assert problems_of(artifact.path, artifact.manifest()) == {}
    assert artifact.metrics == {"l_g": 1.5}


def test_each_kind_of_damage_is_found(artifact):
    (artifact.path / "deep" / "a.bin").write_bytes(b"abd")
    assert problems_of(artifact.path, artifact.manifest()) == {"deep/a.bin": "other contents"}
    (artifact.path / "deep" / "a.bin").write_bytes(b"abcd")
    (artifact.path / "b.bin").unlink()
    assert problems_of(artifact.path, artifact.manifest()) == {
        "deep/a.bin": "4 bytes, not 3",
        "b.bin": "missing",
    }


def test_a_missing_file_names_the_stage_to_run(artifact):
    with pytest.raises(DamagedArtifactError, match="prefect deployment run gill/mapper"):
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
    with pytest.raises(DamagedArtifactError, match="gill/joint"):
        joint.adapters_spec()
