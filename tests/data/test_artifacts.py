"""Manifests: what is damaged is found and named."""

import pytest

from data.artifacts import (
    Artifact,
    DamagedArtifactError,
    Manifest,
    describe_files,
    problems_of,
    write_manifest,
)


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
