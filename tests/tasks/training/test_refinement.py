"""Further training of the retrieval maps on cached states, on a small store."""

import pytest
import torch
from small_store import R, SmallStore

from gill.evaluation.retrieval import ranks
from tasks.config.adapters import AdaptersConfig
from tasks.tracking.stage_log import ConsoleLog
from tasks.training.refinement import refine_retrieval

pytestmark = pytest.mark.slow  # trains


@pytest.fixture
def store(tmp_path):
    return SmallStore(tmp_path)


def refined(store, **changes):
    adapters, log = store.trained(), ConsoleLog()
    config = AdaptersConfig(
        **{"num_img_tokens": R, "refine_steps": 40, "refine_batch_size": 12, "log_every": 10,
           "refine_learning_rate": 0.02, "refine_noise": 0.1, "precision": "float32", **changes}
    )  # fmt: skip
    refine_retrieval(config, adapters, store.features, store.adapters.path, log)
    return adapters, log


def mean_rank(store, adapters):
    states = torch.from_numpy(store.states_of["train"]).float()
    features = torch.from_numpy(store.features_of["train"]).float()
    maps = adapters.retrieval
    return float(ranks(maps.embed_text(states), maps.embed_image(features)).float().mean())


def test_only_the_retrieval_maps_are_trained_and_they_get_better(store):
    before = store.trained()
    after, log = refined(store)
    changed = {
        name for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }  # fmt: skip
    assert changed
    assert all(name.startswith("retrieval.") for name in changed)
    assert mean_rank(store, after) < 0.5 * mean_rank(store, before)
    assert [step for step, _ in log.history] == [10, 20, 30, 40]
    assert all("refine_loss" in values for _, values in log.history)


def test_the_rate_falls_to_nothing_with_a_cosine(store):
    _, log = refined(store, refine_steps=10, log_every=1)
    rates = [values["refine_learning_rate"] for _, values in log.history]
    assert rates[0] == pytest.approx(0.02)
    assert rates[5] == pytest.approx(0.01)
    assert rates == sorted(rates, reverse=True)


def test_a_killed_refinement_ends_with_the_same_bits(store, tmp_path):
    whole, _ = refined(store, checkpoint_every=5)
    # The newest checkpoint but one, as a kill would leave it.
    found = sorted(store.adapters.path.glob("refine_checkpoint-*.pt"))
    assert [p.name for p in found] == ["refine_checkpoint-00000035.pt",
                                       "refine_checkpoint-00000040.pt"]  # fmt: skip
    found[-1].unlink()
    again, _ = refined(store, checkpoint_every=5)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_pairs_that_are_left_out_are_not_refined_on(tmp_path):
    kept = [i % 3 > 0 for i in range(12)]
    one, other = SmallStore(tmp_path / "one"), SmallStore(tmp_path / "other")
    one.select(kept)
    other.remove(kept)
    selected, without = (refined(s, refine_steps=5, refine_batch_size=4)[0] for s in (one, other))
    for name, value in without.state_dict().items():
        assert torch.equal(selected.state_dict()[name], value), name
