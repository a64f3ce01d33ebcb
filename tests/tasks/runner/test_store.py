"""What has a final name is what its manifest says; what is unfinished is kept only if proven."""

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.artifacts import Artifact
from data.io.atomic import atomic_file, write_bytes, write_json
from data.io.journal import JOURNAL
from data.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from tasks.runner.store import (
    MissingArtifactError,
    OtherRowsError,
    begin,
    begun_with,
    check_work,
    find,
    finished,
    is_whole,
    partial_of,
    seal,
    store_folder,
)

LOG = logging.getLogger("test")


def probe(fingerprint="f00"):
    return Artifact("probe", fingerprint, store_folder() / "probe" / fingerprint)


def table(path, keys):
    with atomic_file(path) as handle:
        pq.write_table(pa.table({"key": keys, "x": np.arange(len(keys))}), handle)


def work(artifact, keys=("k0", "k1")):
    """What a stage of three files writes of what is not there yet; returns what it wrote."""
    partial, wrote = partial_of(artifact), []
    for name in ("a.json", "deep/t-00000.parquet", "w.bin"):
        if (partial / name).exists():
            continue
        wrote.append(name)
        if name.endswith(".parquet"):
            table(partial / name, list(keys))
        else:
            write_bytes(partial / name, name.encode() * 100)
    return wrote


def sealed(artifact, **given):
    """Work and seal, as an execution does; returns what was written."""
    begin(artifact, [], LOG)
    wrote = work(artifact, **given)
    files = check_work(partial_of(artifact), LOG)
    manifest = Manifest("probe", 1, artifact.fingerprint, {"seed": 1}, {}, {"loss": 0.5}, files)
    write_manifest(partial_of(artifact), manifest)
    seal(artifact)
    return wrote


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edited(path, change):
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described, indent=2))


TABLE = "deep/t-00000.parquet"
FILES = {"a.json", TABLE, "w.bin"}
# Each kind of damage to a finished artifact, and what must be made anew.
DAMAGES = {
    "deleted": (lambda p: (p / TABLE).unlink(), {TABLE}),
    "flipped": (lambda p: flip(p / TABLE), {TABLE}),
    "emptied": (lambda p: (p / "w.bin").write_bytes(b""), {"w.bin"}),
    "cut": (lambda p: (p / "w.bin").write_bytes((p / "w.bin").read_bytes()[:-3]), {"w.bin"}),
    "swapped": (
        lambda p: ((p / "a.json").rename(p / "x"), (p / "w.bin").rename(p / "a.json"),
                   (p / "x").rename(p / "w.bin")),
        {"a.json", "w.bin"},
    ),
    "made a folder": (lambda p: ((p / "w.bin").unlink(), (p / "w.bin").mkdir()), {"w.bin"}),
    "manifest deleted": (lambda p: (p / MANIFEST).unlink(), set()),
    "manifest cut": (lambda p: (p / MANIFEST).write_bytes(b'{"stage"'), set()),
    "manifest emptied": (lambda p: (p / MANIFEST).write_bytes(b""), set()),
    "manifest no UTF-8": (lambda p: (p / MANIFEST).write_bytes(b"\xff\xfe\x00"), set()),
    "manifest a list": (lambda p: (p / MANIFEST).write_bytes(b"[1, 2]"), set()),
    "manifest lists no files": (
        lambda p: edited(p / MANIFEST, lambda m: m["files"].clear()), set(),
    ),
    "a metric changed": (
        lambda p: edited(p / MANIFEST, lambda m: m["metrics"].update(loss=0.1)), set(),
    ),
    "another fingerprint": (
        lambda p: edited(p / MANIFEST, lambda m: m.update(fingerprint="f01")), set(),
    ),
    "manifest and journal": (
        lambda p: ((p / MANIFEST).unlink(), shutil.rmtree(p / JOURNAL)), FILES,
    ),
    "manifest and a file": (lambda p: ((p / MANIFEST).unlink(), flip(p / "a.json")), {"a.json"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_artifact_is_named_and_only_the_damage_made_anew(var, caplog, kind):
    artifact = probe()
    assert sealed(artifact) == sorted(FILES)
    assert is_whole(artifact, LOG)
    before = {n: (artifact.path / n).read_bytes() for n in FILES}
    damage, lost = DAMAGES[kind]
    damage(artifact.path)
    assert not is_whole(artifact, LOG)
    assert "is damaged and will be rebuilt" in caplog.text
    assert find(artifact) is None
    assert set(sealed(artifact)) == lost
    assert is_whole(artifact, LOG)
    assert {n: (artifact.path / n).read_bytes() for n in FILES} == before


def test_another_artifacts_folder_under_its_name_is_not_taken_for_it(var):
    sealed(probe("f01"), keys=("other", "rows"))
    shutil.copytree(probe("f01").path, probe().path)
    assert not is_whole(probe(), LOG)


def test_alien_shards_are_set_aside_and_nothing_is_rebuilt(var, caplog):
    artifact = probe()
    sealed(artifact)
    shutil.copy(artifact.path / TABLE, artifact.path / "deep/t-00001.parquet")
    (artifact.path / "README.md").write_text("mine")
    assert is_whole(artifact, LOG)
    assert "t-00001.parquet: not of this artifact" in caplog.text
    assert [p.name for p in (artifact.path / "deep").iterdir()] == ["t-00000.parquet"]
    assert (store_folder() / "probe/f00.strays/deep/t-00001.parquet").exists()
    assert (artifact.path / "README.md").exists()
    assert [p.name for p in finished("probe")] == ["f00"]


def test_what_is_finished_of_a_stage_is_told_newest_first_whatever_its_files_times(var):
    made = {"f01": "2026-01-02", "f02": "2026-01-03", "f03": "2026-01-03", "f04": "2026-01-01"}
    for name, when in made.items():
        sealed(probe(name))
        manifest = replace(read_manifest(probe(name).path), provenance={"made": when})
        write_manifest(probe(name).path, manifest)
    (probe("f04").path / MANIFEST).write_text("{")
    begin(probe("f05"), [], LOG)
    found = finished("probe")
    assert [path.name for path in found] == ["f03", "f02", "f01"]
    assert [manifest.fingerprint for manifest in found.values()] == ["f03", "f02", "f01"]
    assert finished("mapper") == {}


@pytest.mark.parametrize("kind", ["flipped", "cut", "swapped", "stray", "unfinished", "journal"])
def test_unfinished_work_goes_on_with_proven_files_alone(var, kind):
    artifact = probe()
    partial = partial_of(artifact)
    begin(artifact, [], LOG)
    work(artifact)
    if kind == "flipped":
        flip(partial / TABLE)
    elif kind == "cut":
        (partial / "w.bin").write_bytes(b"w")
    elif kind == "swapped":
        (partial / "w.bin").write_bytes((partial / "a.json").read_bytes())
    elif kind == "stray":
        (partial / "deep/t-00001.parquet").write_bytes((partial / TABLE).read_bytes())
    elif kind == "unfinished":
        (partial / f"{TABLE}.12-34.part").write_bytes(b"PAR1")
    else:
        (line,) = (partial / JOURNAL).glob("*.jsonl")
        line.write_bytes(line.read_bytes().replace(b"w.bin", b"\xff.bin"))
    assert begin(artifact, [], LOG)
    lost = {"flipped": [TABLE], "cut": ["w.bin"], "swapped": ["w.bin"], "journal": ["w.bin"]}
    assert work(artifact) == lost.get(kind, [])
    assert check_work(partial, LOG).keys() == FILES


def test_what_is_begun_says_what_it_is_made_of(var):
    artifact = probe()
    assert begun_with(partial_of(artifact)) is None
    begin(artifact, [probe("f02"), probe("f01"), probe("f02")], LOG)
    assert begun_with(partial_of(artifact)) == ("probe/f01", "probe/f02")
    sealed(artifact)  # begun again, and with nothing
    assert begun_with(artifact.path) == ()
    (artifact.path / JOURNAL / "inputs.json").write_text("{")
    assert begun_with(artifact.path) is None


def test_what_changes_under_the_hands_of_a_stage_is_not_sealed(var, caplog):
    artifact = probe()
    begin(artifact, [], LOG)
    work(artifact)
    flip(partial_of(artifact) / TABLE)
    assert check_work(partial_of(artifact), LOG) is None
    assert "before it was sealed: deep/t-00000.parquet: not what was written" in caplog.text
    assert work(artifact) == [TABLE]
    assert check_work(partial_of(artifact), LOG).keys() == FILES


@pytest.mark.parametrize("keys", [["k0"], ["k0", "k1", "k2"], ["k0", "k2"]])
def test_a_rebuilt_artifact_has_the_rows_that_it_had(var, keys):
    artifact = probe()
    sealed(artifact)
    (artifact.path / TABLE).unlink()
    assert not is_whole(artifact, LOG)
    for _ in range(2):  # it does not go away by itself
        with pytest.raises(OtherRowsError, match=r"t-00000.parquet: . rows.* before"):
            sealed(artifact, keys=keys)
        (partial_of(artifact) / TABLE).unlink()
    assert sealed(artifact) == [TABLE]
    assert is_whole(artifact, LOG)


def test_work_that_was_stopped_right_before_its_name_is_taken_as_it_is(var):
    artifact = probe()
    sealed(artifact)
    artifact.path.rename(partial_of(artifact))
    assert is_whole(artifact, LOG)
    assert find(artifact) == artifact


def test_manifests_of_earlier_versions_without_a_checksum_are_taken(var):
    artifact = probe()
    sealed(artifact)
    edited(artifact.path / MANIFEST, lambda m: m.pop("sha256"))
    assert is_whole(artifact, LOG)
    flip(artifact.path / "w.bin")
    assert not is_whole(artifact, LOG)
    assert sealed(artifact) == ["w.bin"]


def test_older_unfinished_work_gives_way(var):
    artifact = probe()
    sealed(artifact)
    write_json(partial_of(artifact) / "old.json", 1)
    flip(artifact.path / "w.bin")
    assert not is_whole(artifact, LOG)
    assert not (partial_of(artifact) / "old.json").exists()
    assert sealed(artifact) == ["w.bin"]


def test_a_missing_input_says_what_to_run():
    with pytest.raises(MissingArtifactError, match=r"mapper needs .*adapters.*gill run adapters"):
        raise MissingArtifactError("mapper", "adapters")
