"""The stage joint on a store of a few rows: it writes what adapters and mapper write."""

import pytest
import torch
from small_store import LLM, TARGET, R, SmallStore, tiny_context

from data.artifacts import TrainedMapper
from data.io.journal import contents, files_in
from data.manifest import Manifest, described, write_manifest
from gill.losses import GenerationLossWeight
from tasks.config.adapters import AdaptersConfig
from tasks.config.mapper import JointConfig, MapperConfig
from tasks.parts.trained_mapper import load_mapper
from tasks.stages.joint import run

pytestmark = pytest.mark.slow  # trains


@pytest.fixture
def store(tmp_path):
    return SmallStore(tmp_path / "store")


def trained(store, out, weight=1.0, **changes):
    adapters = AdaptersConfig(
        **{"num_img_tokens": R, "num_visual_tokens": 2, "retrieval_dim": 8, "steps": 3,
           "batch_size": 4, "warmup_steps": 0, "precision": "float32", **changes}
    )  # fmt: skip
    mapper = MapperConfig(kind="linear", hidden_dim=8, loss_form="squared")
    config = JointConfig.composed(adapters, mapper, GenerationLossWeight(generation_weight=weight))
    out.mkdir(parents=True)
    context = tiny_context(config, out)
    return run(context, store.images, store.features, store.targets)


def test_both_artifacts_lie_in_one_folder(store, tmp_path):
    made = trained(store, tmp_path / "joint" / "f")
    names = {path.name for path in made.path.iterdir()}
    assert names == {"adapters.json", "adapters.safetensors", "states", "linear.json",
                     "linear.safetensors"}  # fmt: skip
    spec = made.mapper_spec("linear")
    sizes = (spec["num_targets"], spec["target_dim"], spec["llm_dim"], spec["num_img_tokens"])
    assert sizes == (*TARGET, LLM, R)
    assert {"validation_l_c", "validation_l_g", "validation_t2i_r1"} < set(made.metrics)


def test_the_weight_of_the_generation_loss_reaches_the_tokens(store, tmp_path):
    """E_img learns from l_g too: that is what joint training is for."""
    from safetensors.torch import load_file

    light, heavy = (
        load_file(trained(store, tmp_path / str(w), w, steps=1, gradient_clip=1e9).adapters_weights)
        for w in (0.0, 50.0)
    )
    assert not torch.equal(light["img_tokens.weight"], heavy["img_tokens.weight"])
    # The captioning map has no part in l_g: its first step is the same.
    name = next(name for name in light if name.startswith("captioning."))
    assert torch.equal(light[name], heavy[name])


def test_the_mapper_is_read_as_one_of_the_stage_mapper(store, tmp_path):
    made = trained(store, tmp_path / "joint" / "f")
    assert isinstance(made, TrainedMapper)
    config = {"kind": "linear", "baselines": []}
    held = {p.relative_to(made.path).as_posix(): contents(p) for p in files_in(made.path)}
    manifest = Manifest("joint", 1, "f", config, {}, {}, described(made.path, held))
    write_manifest(made.path, manifest)
    mapper = load_mapper(made, torch.device("cpu"))
    found = mapper(torch.randn(2, R, LLM), torch.zeros(R, LLM))
    assert found.shape == (2, *TARGET)
