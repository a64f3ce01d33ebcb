"""The mapper stage."""

import pytest
import torch
from safetensors.torch import load_file
from small_store import SmallStore, tiny_context

from tasks.config.mapper import MapperConfig
from tasks.stages.mapper import run

KINDS = ("gill", "linear", "mlp", "encoder")


@pytest.fixture(scope="module")
def by_initialization(tiny_run, tmp_path_factory):
    return {
        start: tiny_run.run(
            "mapper", tmp_path_factory.mktemp(start), initialization=start, baselines=KINDS[1:]
        )
        for start in ("random", "data_dependent")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_nearer_from_a_data_dependent_initialization(by_initialization, kind):
    name = "validation_l_g" if kind == "gill" else f"{kind}_validation_l_g"
    assert by_initialization["data_dependent"][1][name] < by_initialization["random"][1][name]


def test_it_helps_where_both_are_trained_together(tiny_run, tmp_path_factory):
    found = {
        start: tiny_run.run("joint", tmp_path_factory.mktemp(start), initialization=start)[1]
        for start in ("random", "data_dependent")
    }
    assert found["data_dependent"]["validation_l_g"] < found["random"]["validation_l_g"]


def test_a_mapper_and_its_baselines_lie_side_by_side(by_initialization):
    context, metrics = by_initialization["data_dependent"]
    assert {p.stem for p in context.out.glob("*.safetensors")} == set(KINDS)
    assert metrics["mean_target_l_g"] > 0


def test_pairs_that_are_left_out_are_not_trained_on(tmp_path):
    """A selection beside the states is shards without the other pairs, to the bit."""
    kept = [False] * 6 + [i % 3 > 0 for i in range(6)]  # of the first shard nothing is left
    config = MapperConfig(
        steps=6, batch_size=4, warmup_steps=0, precision="float32", hidden_dim=16, layers=1,
        heads=2, feedforward_dim=32, baselines=["linear"],
    )  # fmt: skip
    made = {}
    for name in ("selected", "without"):
        store = SmallStore(tmp_path / name)
        store.trained()
        store.select(kept) if name == "selected" else store.remove(kept)
        context = tiny_context(config, tmp_path / name / "mapper" / "f")
        context.out.mkdir(parents=True)
        made[name] = run(context, store.targets, store.adapters)
    assert dict(made["selected"].metrics) == dict(made["without"].metrics)
    for kind in ("gill", "linear"):
        one, other = (load_file(m.mapper_weights(kind)) for m in made.values())
        assert all(torch.equal(one[key], other[key]) for key in other)
