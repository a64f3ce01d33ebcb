"""An imported model is evaluated like the one that it was exported from."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from shard_tables import feature_table, target_table

from data.artifacts import ClipFeatures, TextTargets, TrainedJointly
from data.manifest import DamagedArtifactError
from data.shards import write_shard
from flows.overrides import ConfigError
from flows.pipeline import dag
from flows.recipes import resolve
from tasks.config.parts import VisionConfig
from tasks.inference.released import export, import_released
from tasks.inference.sources import LoadError
from tasks.runner.context import StageContext
from tasks.runner.dag import plan
from tasks.runner.execution import Execution
from tasks.runner.record import StageRecord
from tasks.stages import imported
from tasks.tracking.stage_log import ConsoleLog


@pytest.fixture(scope="module")
def var(trained, tmp_path_factory):
    """The tiny run, and its model beside it: exported, and imported again."""
    folder = tmp_path_factory.mktemp("imported") / "var"
    shutil.copytree(trained, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GILL_VAR", str(folder))
        export(None, folder / "released", anyway=True)
        *_, decision = import_released(folder / "released")
    (folder / "model.txt").write_text(str(decision.path))
    return folder


@pytest.fixture
def model(var, monkeypatch):
    monkeypatch.setenv("GILL_VAR", str(var))
    return (var / "model.txt").read_text()


def planned(model, **overrides):
    config = resolve("tiny", {"schedule": "imported", "model": str(model), **overrides})
    return plan(dag(config.schedule), config)


def before(var, stage):
    stages = json.loads((var / "last_run.json").read_text())["stages"]
    folder = var / "store" / stage / stages[stage]["fingerprint"]
    return json.loads((folder / "manifest.json").read_text())["metrics"]


@pytest.fixture(scope="module")
def results(var):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GILL_VAR", str(var))
        return {
            name: Execution(stage, StageRecord(stage, None), False, logging.getLogger("test"))()
            for name, stage in planned((var / "model.txt").read_text()).items()
        }


def test_the_figures_are_those_of_the_model_that_was_exported(var, results):
    made_here = ["imported", "index", "decision", "evaluate"]
    assert [name for name, result in results.items() if result.status == "ran"] == made_here
    for stage in ("index", "decision", "evaluate"):
        wanted, found = before(var, stage), results[stage].metrics
        # The released layout has no place for the baselines that are trained beside a mapper.
        assert found.keys() == {name for name in wanted if "linear_mapper" not in name}
        for name, value in found.items():
            assert value == pytest.approx(wanted[name], rel=0, abs=1e-5), f"{stage}.{name}"
    assert {"retrieval_t2i_r1", "caption_cider", "decision_macro_f1"} <= found.keys()


def test_an_imported_decision_model_is_scored_and_none_is_trained(model, results, tmp_path):
    stage, folder = planned(model)["decision"], tmp_path / "imported" / "f"
    shutil.copytree(results["imported"].artifact.path, folder)
    path = folder / "decision.safetensors"
    other = {name: -value for name, value in load_file(path).items()}  # no training gives these
    save_file(other, path)
    context = StageContext(
        stage.config, stage.parts, stage.runtime, tmp_path / "decision" / "f", ConsoleLog()
    )
    inputs = {**stage.inputs, "mapper": TrainedJointly("imported", "f", folder)}
    made = stage.stage.run(context, **inputs)
    weights = load_file(made.weights)
    assert weights.keys() == other.keys()
    assert all(torch.equal(weights[name], other[name]) for name in other)
    assert made.metrics["macro_f1"] != results["decision"].metrics["macro_f1"]


def test_nothing_is_trained_so_no_states_of_training_pairs_are_made(results):
    made = results["imported"].artifact
    names = {path.name.rpartition("-")[0] for path in made.states.iterdir()}
    assert names == {"validation", "test"}
    assert isinstance(made, TrainedJointly)
    assert made.metrics["trained_parameters"] > 0


def test_what_a_model_holds_identifies_it_and_not_where_it_lies(model, var, tmp_path, monkeypatch):
    first = planned(model)["imported"].artifact.fingerprint
    monkeypatch.setenv("GILL_VAR", str(tmp_path / "elsewhere"))
    *_, again = import_released(var / "released")
    monkeypatch.setenv("GILL_VAR", str(var))
    assert planned(again.path)["imported"].artifact.fingerprint == first
    weights = torch.load(var / "released" / "decision_model.pth.tar", weights_only=True)
    weights["state_dict"]["1.bias"] += 1
    shutil.copytree(var / "released", tmp_path / "other")
    torch.save(weights, tmp_path / "other" / "decision_model.pth.tar")
    monkeypatch.setenv("GILL_VAR", str(tmp_path / "elsewhere"))
    *_, other = import_released(tmp_path / "other")
    monkeypatch.setenv("GILL_VAR", str(var))
    assert planned(other.path)["imported"].artifact.fingerprint != first


def test_a_model_that_was_trained_here_can_be_named_too(var, model):
    stages = json.loads((var / "last_run.json").read_text())["stages"]
    own = var / "store" / "decision" / stages["decision"]["fingerprint"]
    assert planned(own)["imported"].artifact == planned(model)["imported"].artifact


def run_on(model, images, features, targets, out, **parts):
    out.mkdir(parents=True)
    config = resolve("tiny", {"schedule": "imported", "model": str(model)})
    frozen = config.parts.model_copy(update=parts)
    context = StageContext(config.imported, frozen, config.runtime, out, ConsoleLog())
    return imported.run(context, images, features, targets)


def test_a_model_of_other_frozen_parts_is_refused(model, tmp_path):
    inputs = planned(model)["imported"].inputs
    other = VisionConfig(name="ViT-B-32", pretrained="openai")
    with pytest.raises(LoadError, match="vision part tiny, and this recipe has ViT-B-32/openai"):
        run_on(model, **inputs, out=tmp_path / "a" / "f", vision=other)


def test_features_and_targets_of_other_widths_are_refused(model, tmp_path):
    given = planned(model)["imported"].inputs
    images, features, targets = given["images"], given["features"], given["targets"]
    other = ClipFeatures("clip_features", "f", tmp_path / "clip_features" / "f")
    write_shard(tmp_path / "clip_features/f/features/test-00000.parquet", feature_table(["k"], 3))
    with pytest.raises(LoadError, match="image features of width 32, and those of this run have 3"):
        run_on(model, images, other, targets, tmp_path / "a" / "f")
    other = TextTargets("text_targets", "f", tmp_path / "text_targets" / "f")
    table = target_table(np.zeros((1, 2, 32), np.float32))
    write_shard(tmp_path / "text_targets/f/targets/test-00000.parquet", table)
    with pytest.raises(LoadError, match=r"8 x 16 numbers for the .* of this run takes 2 x 32"):
        run_on(model, images, features, other, tmp_path / "b" / "f")


def test_damaged_weights_are_named(model, var, tmp_path):
    shutil.copytree(var / "store", tmp_path / "store")
    path = tmp_path / "store" / model.partition("store/")[2] / "decision.safetensors"
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)
    inputs = planned(path.parent)["imported"].inputs
    with pytest.raises(DamagedArtifactError, match=r"decision\.safetensors: other contents"):
        run_on(path.parent, **inputs, out=tmp_path / "a" / "f")


def test_a_mapper_of_another_kind_is_refused(model, var, tmp_path):
    shutil.copytree(var / "store", tmp_path / "store")
    stages = json.loads((var / "last_run.json").read_text())["stages"]
    path = tmp_path / "store" / "mapper" / stages["mapper"]["fingerprint"] / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["kind"] = "linear"
    del manifest["sha256"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(LoadError, match="mapper of the kind 'linear', and only 'gill'"):
        planned(path.parent)


def test_what_a_run_imported_is_no_model_to_import_from(var, model, results):
    """Else --force would remove an artifact to make it of itself."""
    with pytest.raises(LoadError, match=f"a run has imported itself, of {model}; name that"):
        planned(results["decision"].artifact.path)


@pytest.mark.parametrize(
    ("model_of", "why"),
    [
        (lambda var: var / "released", "put it into the store with `gill import`"),
        (lambda var: var / "nothing", "holds no run"),
    ],
)
def test_what_is_no_trained_model_is_refused_before_a_run(var, model, model_of, why):
    with pytest.raises(LoadError, match=why):
        planned(model_of(var))


def test_a_schedule_and_a_model_go_together():
    with pytest.raises(ConfigError, match="schedule is 'imported' and model names none"):
        resolve("tiny", {"schedule": "imported"})
    with pytest.raises(ConfigError, match="model is 'x' and schedule 'staged' trains one"):
        resolve("tiny", {"model": "x"})
