"""Finished artifacts are found; a damaged one becomes unfinished work with its whole files."""

import pytest

from data.artifacts import MANIFEST, Artifact
from tasks.runner.store import MissingArtifactError, find, reopen, store_folder


@pytest.fixture
def made(var):
    """An artifact of two files."""
    folder = store_folder() / "probe" / "f00"
    folder.mkdir(parents=True)
    for name in ("a", "b", MANIFEST):
        (folder / name).write_text(name)
    return folder


def probe(fingerprint="f00"):
    return Artifact("probe", fingerprint, store_folder() / "probe" / fingerprint)


def test_only_a_folder_with_a_manifest_is_an_artifact(made):
    assert find(probe()).path == made
    assert find(probe("other")) is None
    (made / MANIFEST).unlink()
    assert find(probe()) is None


def test_a_damaged_artifact_keeps_its_whole_files(made):
    reopen(find(probe()), ["b"])
    assert find(probe()) is None
    (partial,) = store_folder().glob("probe/*")
    assert partial.name == "f00.partial"
    assert [p.name for p in partial.iterdir()] == ["a"]


def test_older_unfinished_work_gives_way(made):
    stale = made.with_name("f00.partial")
    stale.mkdir()
    (stale / "old").touch()
    reopen(find(probe()), [])
    assert sorted(p.name for p in stale.iterdir()) == ["a", "b"]


def test_a_missing_input_says_what_to_run():
    with pytest.raises(MissingArtifactError, match=r"mapper needs .*adapters.*gill/adapters"):
        raise MissingArtifactError("mapper", "adapters")
