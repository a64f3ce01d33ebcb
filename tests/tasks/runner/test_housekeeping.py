"""Care of the store: what must stay, what can go, what is damaged."""

import json
import shutil

import pytest
from filelock import FileLock

from data.io.journal import sha256_of
from tasks.runner.housekeeping import StoreError, damage, needed, pin, pinned, remove, stored


def artifact(var, stage, fingerprint, inputs=(), made="2026-01-01T00:00:00"):
    folder = var / "store" / stage / fingerprint
    folder.mkdir(parents=True)
    (folder / "data.bin").write_bytes(fingerprint.encode() * 10)
    files = {
        "data.bin": {
            "bytes": (folder / "data.bin").stat().st_size,
            "sha256": sha256_of(folder / "data.bin"),
        }
    }
    manifest = {
        "stage": stage, "version": 1, "fingerprint": fingerprint, "config": {}, "metrics": {},
        "inputs": {name.partition("/")[0]: name for name in inputs}, "files": files,
        "provenance": {"made": made},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def store(var):
    """Two chains, a leftover and a manifest that cannot be read."""
    artifact(var, "download", "d1")
    artifact(var, "adapters", "a1", ["download/d1"])
    artifact(var, "mapper", "m1", ["adapters/a1"])
    artifact(var, "download", "d2", made="2026-01-02T00:00:00")
    artifact(var, "adapters", "a2", ["download/d2"])
    (var / "store" / "mapper" / "m2.partial").mkdir()
    (artifact(var, "index", "i1") / "manifest.json").write_text("{")
    (var / "last_run.json").write_text(json.dumps({"stages": {"mapper": {"fingerprint": "m1"}}}))
    return var


def by_name():
    return {one.name: one for one in stored() if not one.unfinished}


def test_what_is_there(store):
    assert [one.name for one in stored()] == [
        "adapters/a1", "adapters/a2", "download/d1", "download/d2", "index/i1", "mapper/m1",
        "mapper/m2",
    ]  # fmt: skip
    assert by_name()["mapper/m1"].inputs == ("adapters/a1",)
    assert by_name()["index/i1"].problem
    assert stored()[-1].unfinished


def test_the_last_run_needs_all_that_it_was_made_of(store):
    assert needed(stored()) == {
        "mapper/m1": "of the last run",
        "adapters/a1": "needed by mapper/m1",
        "download/d1": "needed by adapters/a1",
    }


def test_a_pin_keeps_an_artifact_and_what_it_was_made_of(store):
    assert pin("adapters/a2") == "adapters/a2"
    reasons = needed(stored())
    assert reasons["adapters/a2"] == "pinned"
    assert reasons["download/d2"] == "needed by adapters/a2"
    pin("adapters/a2", keep=False)
    assert pinned() == []
    assert "download/d2" not in needed(stored())


@pytest.mark.parametrize(
    ("name", "why"), [("adapters", "stands for"), ("nothing", "there is none")]
)
def test_a_pin_must_mean_one_artifact(store, name, why):
    with pytest.raises(StoreError, match=why):
        pin(name)
    assert pinned() == []


def test_what_a_run_works_on_stays(store):
    spare = by_name()["adapters/a2"]
    with FileLock(spare.path.with_name("a2.lock")):
        reasons = needed(stored())
        assert reasons["adapters/a2"] == "in use"
        assert reasons["download/d2"] == "needed by adapters/a2"
        with pytest.raises(StoreError, match=r"adapters/a2 is in use now"):
            remove(spare)
    assert (spare.path / "manifest.json").exists()
    remove(spare)
    assert not spare.path.exists()


def test_every_byte_counts(store):
    found = by_name()
    assert damage(found["mapper/m1"]) == {}
    data = found["mapper/m1"].path / "data.bin"
    whole = data.read_bytes()
    data.write_bytes(b"X" + whole[1:])
    assert damage(found["mapper/m1"]) == {"data.bin": "other contents"}
    data.write_bytes(whole[:-1])
    assert damage(found["mapper/m1"]) == {"data.bin": f"{len(whole) - 1} bytes, not {len(whole)}"}
    data.unlink()
    assert damage(found["mapper/m1"]) == {"data.bin": "missing"}
    assert "manifest.json" in damage(found["index/i1"])


def test_a_last_run_that_cannot_be_read_needs_nothing(store):
    (store / "last_run.json").write_text("")
    assert needed(stored()) == {}
    shutil.rmtree(store / "store")
    assert stored() == []
