"""A trained model is found by run, folder or released layout, and answers the same each time."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data.manifest import DamagedArtifactError
from data.shards import AlignedShards
from flows.recipes import tiny
from gill.inference.results import GeneratedImage, RetrievedImage
from gill.released_args import ReleasedError
from gill.released_checkpoint import ReleasedCheckpoint
from gill.specs import MapperSpec
from tasks.inference.loading import Loaded, load
from tasks.inference.released_files import write_released
from tasks.inference.sources import LoadError
from tasks.runner.registry import stage_named

PROMPT = ["a red apple", Image.new("RGB", (50, 40), "green"), "like this"]


def stages(var):
    return json.loads((var / "last_run.json").read_text())["stages"]


def folder(var, stage):
    return var / "store" / stage / stages(var)[stage]["fingerprint"]


def answer(loaded, **changes):
    return loaded.engine.generate(PROMPT, **{"image_bias": 1e9, "max_new_tokens": 3, **changes})


def test_a_model_is_loaded_by_every_name_of_it(trained_var):
    states = load().engine.img_states([PROMPT])
    last = json.loads((trained_var / "last_run.json").read_text())
    names = [
        trained_var,
        last["run"],
        last["stages"]["evaluate"]["mlflow_run_id"],
        folder(trained_var, "decision"),
        last["stages"]["mapper"]["mlflow_run_id"],
    ]
    for name in names:
        loaded = load(name)
        assert torch.equal(loaded.engine.img_states([PROMPT]), states)
        whole = name != names[-1]
        assert (loaded.engine.index is not None) == whole
        assert (loaded.engine.decision is not None) == whole


def test_the_states_are_those_of_the_store(trained_var):
    adapters, images = folder(trained_var, "adapters"), folder(trained_var, "download")
    rows = AlignedShards({adapters / "states": ["state"], images / "images": ["caption"]}, "test")
    stored = rows.all()
    config = tiny().adapters
    read = config.max_tokens - config.num_img_tokens - 1  # BOS; the tokens are letters
    found = load().engine.img_states([caption[:read] for caption in stored["caption"][:9]])
    expected = torch.from_numpy(np.asarray(stored["state"], np.float32))[:9]
    torch.testing.assert_close(found, expected.view_as(found), atol=1e-2, rtol=1e-2)  # float16


def test_retrieved_images_are_those_of_the_store(trained_var):
    loaded = load()
    shown = [s for s in answer(loaded, choice="retrieve", num_images=2)
             if isinstance(s, RetrievedImage)]  # fmt: skip
    assert len({s.key for s in shown}) == len(shown) == 6
    images = AlignedShards(
        {folder(trained_var, "download") / "images": ["origin", "image"]}, "train"
    )
    stored = images.all()
    for segment in shown:
        at = list(stored["key"]).index(segment.key)
        assert segment.origin == stored["origin"][at]
        assert loaded.image(segment).size == (128, 128)


def test_generated_images_repeat_with_their_seed(trained_var):
    first, second = answer(load(), choice="generate"), answer(load(), choice="generate")
    for a, b in zip(first, second, strict=True):
        assert type(a) is type(b)
        if isinstance(a, GeneratedImage):
            assert torch.equal(a.image, b.image)
            assert load().image(a).size == (16, 16)
    assert load().engine.settings.steps == tiny().parts.generator.steps


def test_the_released_layout_is_loaded(trained_var, tmp_path):
    engine = load().engine
    mapper = json.loads((folder(trained_var, "mapper") / "gill.json").read_text())
    spec = MapperSpec(**mapper)
    released = ReleasedCheckpoint(
        engine.model.adapters.spec,
        load_file(folder(trained_var, "adapters") / "adapters.safetensors"),
        spec,
        load_file(folder(trained_var, "mapper") / "gill.safetensors"),
        load_file(folder(trained_var, "decision") / "decision.safetensors"),
        {"opt_version": "tiny", "visual_encoder": "somebody/else"},
    )
    write_released(tmp_path / "new", released)
    with pytest.raises(ReleasedError, match="'somebody/else'"):
        load(tmp_path / "new")
    loaded = load(tmp_path / "new", parts=tiny().parts)
    assert torch.equal(loaded.engine.img_states([PROMPT]), engine.img_states([PROMPT]))
    segment = answer(loaded)[1]
    assert isinstance(segment, GeneratedImage)
    assert torch.equal(segment.image, answer(Loaded(engine, None), choice="generate")[1].image)


def test_what_is_not_there_is_named(trained_var, tmp_path, monkeypatch):
    with pytest.raises(LoadError, match="holds no run"):
        load(tmp_path)
    with pytest.raises(LoadError, match="there is no MLflow run '0000"):
        load("0" * 32)
    with pytest.raises(LoadError, match="no trained mapper"):
        load(folder(trained_var, "adapters"))
    copy = tmp_path / "var"
    shutil.copytree(trained_var / "store", copy / "store")
    shutil.copy(trained_var / "last_run.json", copy)
    shutil.rmtree(folder(copy, "clip_features"))
    with pytest.raises(LoadError, match="the artifact clip_features/"):
        load(copy)


def test_damaged_weights_are_named(trained_var, tmp_path):
    shutil.copytree(trained_var / "store", tmp_path / "store")
    shutil.copy(trained_var / "last_run.json", tmp_path)
    weights = folder(tmp_path, "mapper") / "gill.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DamagedArtifactError, match=r"gill.safetensors: other contents"):
        load(tmp_path)


def test_manifests_without_parts_ask_mlflow(trained_var, tmp_path, monkeypatch):
    shutil.copytree(trained_var / "store", tmp_path / "store")
    shutil.copy(trained_var / "last_run.json", tmp_path)
    for stage in stages(tmp_path):
        path = folder(tmp_path, stage) / "manifest.json"
        manifest = json.loads(path.read_text())
        assert set(manifest["provenance"].pop("parts")) == set(
            stage_named(stage).declared.whole_parts
        )
        del manifest["sha256"]  # such manifests are of earlier versions, without a checksum
        path.write_text(json.dumps(manifest))
    assert load(tmp_path).engine.settings == load().engine.settings
    monkeypatch.setenv("GILL_VAR", str(tmp_path))  # another, empty MLflow
    with pytest.raises(LoadError, match="does not say which"):
        load(tmp_path)
    assert load(tmp_path, parts=tiny().parts).engine.vision.name == "tiny"
