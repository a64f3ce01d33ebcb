"""Losses of shard rows as the configuration weighs them, and on held-out pairs."""

import numpy as np
import pytest
import torch
from small_store import LLM, TARGET, VISION, R

from gill.backbones.testing import micro_models
from gill.evaluation.retrieval import recall
from gill.losses import LossWeights
from gill.mapper import MapperSize, new_mapper
from gill.model import Adapters, GillModel
from gill.specs import AdapterSpec
from tasks.config.adapters import AdaptersConfig
from tasks.training.adapter_losses import AdapterLosses, JointMapper, validation

CAPTIONS = ["a cat", "two dogs on a beach", "x", "an old red truck", "moon"]
WEIGHTS = {"captioning_weight": 0.5, "img_prediction_weight": 2.0, "retrieval_weight": 3.0}


def rows(count=5):
    rng = np.random.default_rng(0)
    return {
        "key": [f"k{i}" for i in range(count)],
        "caption": CAPTIONS[:count],
        "feature": rng.normal(size=(count, VISION)).astype(np.float16),
        "target": rng.normal(size=(count, TARGET[0] * TARGET[1])).astype(np.float16),
    }


def losses_of(joint=False, **changes):
    torch.manual_seed(0)
    language = micro_models.language_model()
    spec = AdapterSpec(
        num_img_tokens=R, num_visual_tokens=2, retrieval_dim=8, vision_dim=VISION, llm_dim=LLM
    )
    config = AdaptersConfig(
        **{**WEIGHTS, "num_img_tokens": R, "packing_probability": 0.0, "precision": "float32",
           "batch_size": 2, **changes}
    )  # fmt: skip
    mapper = None
    if joint:
        size = MapperSize(kind="linear", hidden_dim=8)
        made = new_mapper(LLM, R, *TARGET, size)
        mapper = JointMapper(made, None, "squared", 0.25, initialize=False)
    model = GillModel(language, Adapters(spec, language), config.max_tokens - R)
    return AdapterLosses(model, config, mapper)


def test_the_sum_is_weighed_as_configured():
    losses = losses_of()
    found = losses(losses.batch(rows()))
    expected = 0.5 * found["l_c"] + 2.0 * found["l_p"] + 3.0 * found["l_r"]
    torch.testing.assert_close(found["loss"], expected)
    assert set(found) == {"loss", "l_c", "l_p", "l_r"}


def test_a_joint_mapper_adds_its_loss_in_its_form_and_weight():
    losses = losses_of(joint=True)
    batch = losses.batch(rows())
    found, states = losses.with_states(batch)
    made = losses.joint.mapper(states, losses.model.adapters.img_tokens.weight)
    plain = (made - batch.targets.float()).square().sum(-1).mean()
    torch.testing.assert_close(found["l_g"], plain)
    without = 0.5 * found["l_c"] + 2.0 * found["l_p"] + 3.0 * found["l_r"]
    torch.testing.assert_close(found["loss"], without + 0.25 * plain)


def test_a_batch_holds_what_the_rows_say():
    losses = losses_of(joint=True)
    batch = losses.batch(rows())
    assert batch.keys == ("k0", "k1", "k2", "k3", "k4")
    assert batch.captions == losses.model.tokenize(CAPTIONS)
    torch.testing.assert_close(batch.features, torch.from_numpy(rows()["feature"]).float())
    assert batch.targets.shape == (5, *TARGET)
    assert losses_of().batch(rows()).targets is None


def test_validation_is_the_mean_over_pairs_whatever_the_last_batch():
    """Five pairs in batches of two, two and one: each pair counts alike."""
    losses = losses_of()
    found = validation(losses, rows())
    parts = [{n: v[a:b] for n, v in rows().items()} for a, b in ((0, 2), (2, 4), (4, 5))]
    losses.model.adapters.eval()
    weights = LossWeights(**WEIGHTS)
    for name in ("loss", "l_c", "l_p", "l_r"):
        values = [losses.model.losses(losses.batch(p), weights, 0.0)[name].item() for p in parts]
        expected = (2 * values[0] + 2 * values[1] + values[2]) / 5
        assert found[name] == pytest.approx(expected, abs=1e-5), name


def test_validation_never_packs_and_recalls_among_all_pairs():
    losses = losses_of(packing_probability=1.0)
    found = validation(losses, rows())
    assert found == pytest.approx(validation(losses_of(), rows()), abs=1e-6)
    model, batch = losses.model, losses.batch(rows())
    maps = model.adapters.retrieval
    text = maps.embed_text(model.img_states(batch.captions))
    expected = recall(text, maps.embed_image(batch.features))
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_the_random_numbers_of_training_are_not_used_up():
    losses = losses_of()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    validation(losses, rows())
    assert torch.equal(torch.rand(2), expected)
