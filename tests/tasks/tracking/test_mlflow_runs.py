"""Runs that lost their process, first runs at once, and models that are registered."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.io.atomic import write_json
from data.io.journal import contents
from data.manifest import Manifest, described, write_manifest
from flows.local.ports import any_port
from flows.local.services import healthy
from tasks.parts.weights import write_weights
from tasks.paths import ROOT, var_folder
from tasks.runner.housekeeping import bytes_of, damage, freed_by, remove, stored
from tasks.tracking import mlflow_runs
from tasks.tracking.mlflow_runs import is_lost, process_identity


@pytest.mark.process
def test_a_process_is_lost_when_it_is_gone_or_its_number_is_used_again():
    own = process_identity(os.getpid())
    assert not is_lost(own)
    host, pid, started = own.split("/")
    assert is_lost(f"{host}/{pid}/{float(started) - 60:.2f}")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    fingerprint = process_identity(child.pid)
    assert not is_lost(fingerprint)
    child.communicate(b"\n")
    assert is_lost(fingerprint)


def test_runs_of_other_hosts_and_other_tools_are_left_alone():
    assert not is_lost("another-host/1/1.00")
    assert not is_lost("")


@pytest.mark.process
def test_first_runs_at_once_on_a_fresh_var_all_find_the_tables(var):
    code = (
        "from tasks.tracking import mlflow_runs as m; m.end_lost_runs(); m.start_run('a run', {})"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in started:
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said[-2000:]
    client = mlflow_runs.client()
    assert len(client.search_runs([mlflow_runs.experiment_id()])) == 3
    assert not list(var.glob("mlflow.db.*"))


@pytest.fixture
def mapper(var):
    """A finished mapper in the store, and a run of its stage."""
    folder = var / "store" / "mapper" / "f"
    write_weights(folder / "gill.safetensors", {"fc.weight": torch.randn(8, 8)})
    write_json(folder / "gill.json", {"llm_dim": 8})
    holds = {name: contents(folder / name) for name in ("gill.safetensors", "gill.json")}
    files = described(folder, holds)
    write_manifest(folder, Manifest("mapper", 1, "f", {"kind": "gill"}, {}, {}, files))
    return folder, mlflow_runs.start_run("mapper", {"stage": "mapper"})


def held(folder):
    return {path.name: path for path in folder.iterdir() if path.is_file()}


def registered(folder, run_id):
    version = mlflow_runs.register_model("gill-mapper", folder, run_id, {"fingerprint": "f"})
    found = mlflow_runs.client().get_model_version("gill-mapper", version)
    return found, shown_by_mlflow(run_id)


def shown_by_mlflow(run_id):
    """The folder that MLflow shows as the run's model: its own where that is on this machine."""
    here = var_folder() / "mlartifacts" / run_id / "artifacts" / "model"
    if here.exists():
        return here
    return Path(mlflow_runs.client().download_artifacts(run_id, "model"))


@pytest.mark.slow
def test_a_registered_model_is_found_from_mlflow_and_lies_on_the_disk_once(mapper):
    folder, run_id = mapper
    (before,) = stored()
    version, shown = registered(folder, run_id)
    assert version.source.endswith(f"{run_id}/artifacts/model")
    assert str(folder) in version.description
    assert mlflow_runs.is_registered("gill-mapper", "f")
    ours, theirs = held(folder), held(shown)
    assert ours.keys() == theirs.keys() >= {"gill.safetensors", "gill.json", "manifest.json"}
    assert all(path.samefile(theirs[name]) for name, path in ours.items())
    digests = json.loads(theirs["manifest.json"].read_text())["files"]
    assert digests["gill.safetensors"]["bytes"] == theirs["gill.safetensors"].stat().st_size
    (one,) = stored()
    assert one.bytes == before.bytes == bytes_of([one])
    assert freed_by([one]) == before.bytes - sum(path.stat().st_size for path in ours.values())
    assert damage(one) == {}
    weights = load_file(ours["gill.safetensors"])
    remove(one)
    kept = load_file(theirs["gill.safetensors"])
    assert kept.keys() == weights.keys()
    assert all(kept[name].equal(weights[name]) for name in kept)


@pytest.mark.slow
def test_what_is_made_again_leaves_the_registered_weights_as_they_were(mapper, tmp_path):
    folder, run_id = mapper
    _, shown = registered(folder, run_id)
    before = held(shown)["gill.safetensors"].read_bytes()
    other = {name: value + 1 for name, value in load_file(folder / "gill.safetensors").items()}
    save_file(other, tmp_path / "new")
    (tmp_path / "new").replace(folder / "gill.safetensors")  # as data.io.atomic does
    assert held(shown)["gill.safetensors"].read_bytes() == before


@pytest.mark.slow
def test_a_record_on_another_disk_gets_a_copy(mapper, monkeypatch):
    folder, run_id = mapper

    def refuses(*_):
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refuses)
    _, shown = registered(folder, run_id)
    ours, theirs = held(folder), held(shown)
    assert ours.keys() == theirs.keys()
    assert not any(path.samefile(theirs[name]) for name, path in ours.items())
    assert all(path.read_bytes() == theirs[name].read_bytes() for name, path in ours.items())
    (one,) = stored()
    assert freed_by([one]) == one.bytes


@pytest.mark.process
def test_a_record_of_another_machine_gets_a_copy(mapper, monkeypatch, tmp_path):
    """A server that keeps artifacts itself: what is local to it is no folder of ours."""
    folder, _ = mapper
    port = any_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", f"{port}"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'theirs.db'}", "--workers", "1"]
    command += ["--artifacts-destination", str(tmp_path / "theirs")]
    server = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        while not healthy(f"{address}/health"):
            assert server.poll() is None
            time.sleep(0.2)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        client = mlflow_runs.client()
        run = client.create_run(client.create_experiment("theirs"))
        version, shown = registered(folder, run.info.run_id)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    assert version.source.startswith("mlflow-artifacts:")
    assert len(list((tmp_path / "theirs").rglob("gill.safetensors"))) == 1
    ours, theirs = held(folder), held(shown)
    assert all(path.read_bytes() == theirs[name].read_bytes() for name, path in ours.items())
