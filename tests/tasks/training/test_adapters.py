"""A training of the adapters on a store of a few rows, alone and with a mapper."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from small_store import LLM, TARGET, R, SmallStore

from data.artifacts import TrainedAdapters
from data.shards import AlignedShards
from gill.backbones.testing import micro_models
from gill.mapper import MapperSize, new_mapper
from tasks.config.adapters import AdaptersConfig
from tasks.tracking.stage_log import ConsoleLog
from tasks.training.adapter_losses import JointMapper
from tasks.training.adapters import AdapterTraining

pytestmark = pytest.mark.slow  # trains


@pytest.fixture
def store(tmp_path):
    captions = {
        "train": [f"a cat number {i}" for i in range(10)] + ["", "Ёж"],
        "validation": ["a dog", "x", "red bus"],
        "test": ["moon", "a boat"],
    }
    return SmallStore(tmp_path / "store", captions)


@pytest.fixture
def trained(store, tmp_path):
    """Trains into a folder of its own; returns what it wrote, its metrics and its log."""

    def train(name, joint=None, **changes):
        config = AdaptersConfig(
            **{"num_img_tokens": R, "num_visual_tokens": 2, "retrieval_dim": 8, "steps": 4,
               "batch_size": 4, "warmup_steps": 0, "precision": "float32", "log_every": 2,
               **changes}
        )  # fmt: skip
        out, log = tmp_path / "adapters" / name, ConsoleLog()
        out.mkdir(parents=True)
        language = micro_models.language_model()
        training = AdapterTraining(language, config, store.images, store.features, out, log, joint)
        metrics = training.run()
        return TrainedAdapters.made(out, metrics), log

    return train


def states_of(store, made, split):
    folders = {store.images.folder: ["caption"], made.states: ["state"]}
    return AlignedShards(folders, split).all()


def test_weights_states_and_oddities_are_written(store, trained):
    made, log = trained("a")
    assert made.adapters_spec()["llm_dim"] == LLM
    weights = load_file(made.adapters_weights)
    assert made.metrics["trained_parameters"] == sum(v.numel() for v in weights.values())
    assert made.metrics["captions_empty"] == 1
    assert made.metrics["captions_other_scripts"] == 1
    assert {"validation_l_c", "validation_t2i_r1"} < set(made.metrics)
    assert [s for s, values in log.history if "l_c" in values] == [2, 4]
    for split, captions in store.captions.items():
        rows = states_of(store, made, split)
        assert rows["caption"] == captions
        assert rows["state"].shape == (len(captions), R * LLM)


def test_states_are_those_of_the_trained_adapters(store, trained):
    from gill.model import GillModel
    from tasks.parts.trained_adapters import load_adapters

    made, _ = trained("a")
    language = micro_models.language_model()
    model = GillModel(language, load_adapters(made, language), 32 - R)
    found = torch.from_numpy(states_of(store, made, "validation")["state"]).float()
    plain = model.img_states(model.tokenize(store.captions["validation"])).flatten(1)
    torch.testing.assert_close(found, plain, atol=5e-3, rtol=5e-3)


def test_img_embeddings_end_at_the_mean_norm(trained):
    made, _ = trained("a")
    rows = load_file(made.adapters_weights)["img_tokens.weight"]
    mean = micro_models.language_model().embedding.weight.norm(dim=-1).mean()
    torch.testing.assert_close(rows.norm(dim=-1), mean.expand(R))


def test_the_captioning_map_learns_at_a_rate_of_its_own(trained):
    def moved(name, rate):
        """How far two runs of other rates of W_cap lie apart, by parameter."""
        made, _ = trained(name, steps=1, captioning_rate=rate, gradient_clip=1e9)
        return load_file(made.adapters_weights)

    one, other = moved("a", 1.0), moved("b", 0.01)
    for name, value in one.items():
        assert torch.equal(value, other[name]) != name.startswith("captioning."), name


def test_the_same_seed_gives_the_same_bits_and_another_does_not(trained):
    first, again, other = (
        load_file(trained(name, seed=seed)[0].adapters_weights)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_refinement_follows_and_its_states_stay_those_of_the_tokens(trained):
    plain, _ = trained("a")
    refined, log = trained("b", refine_steps=3, refine_batch_size=4, log_every=1)
    one, other = (load_file(made.adapters_weights) for made in (plain, refined))
    for name, value in one.items():
        assert torch.equal(value, other[name]) != name.startswith("retrieval."), name
    assert sum("refine_loss" in values for _, values in log.history) == 3


def test_a_joint_training_needs_no_states_of_its_training_pairs(store, trained):
    torch.manual_seed(1)
    mapper = new_mapper(LLM, R, *TARGET, MapperSize(kind="linear", hidden_dim=8))
    before = mapper.up.weight.detach().clone()
    joint = JointMapper(mapper, store.targets.folder, "norm", 1.0, initialize=False)
    made, log = trained("a", joint)
    assert not torch.equal(mapper.up.weight.detach(), before)
    assert "validation_l_g" in made.metrics
    assert any("l_g" in values for _, values in log.history)
    splits = {path.name.partition("-")[0] for path in made.states.iterdir()}
    assert splits == {"validation", "test"}
    # The mapper's weights are no part of the adapters' file.
    assert not any(name.startswith("mapper.") for name in load_file(made.adapters_weights))


def test_pairs_that_are_left_out_change_nothing_and_keep_their_states(tmp_path, trained, store):
    """Training beside a selection is training on shards without the other pairs, to the bit."""
    kept = [i % 3 > 0 for i in range(12)]
    plain = load_file(trained("all")[0].adapters_weights)
    store.select(kept)
    made, _ = trained("selected")
    assert states_of(store, made, "train")["caption"] == store.captions["train"]
    assert len(AlignedShards({made.states: [], **made.selection}, "train").all()["key"]) == 8
    for folder in store.features.selection:
        shutil.rmtree(folder)
    store.remove(kept)
    without, _ = trained("without")
    assert without.selection == {}
    one, other = load_file(made.adapters_weights), load_file(without.adapters_weights)
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert not all(torch.equal(one[name], plain[name]) for name in plain)
