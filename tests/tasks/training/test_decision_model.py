"""Examples, class weights and inputs of the classifier that retrieves or generates."""

import pytest
import torch
import torch.nn.functional as F

from gill.decision import DecisionModel
from tasks.config.decision import DecisionConfig
from tasks.tracking.stage_log import ConsoleLog
from tasks.training.decision_model import (
    Examples,
    class_weights,
    train_decision_model,
    with_score,
)


def test_class_weights_by_hand():
    assert class_weights(torch.tensor([0, 0, 0, 1])).tolist() == pytest.approx([4 / 6, 2.0])


def test_examples_are_the_rows_with_a_label():
    labels = [1, None, 0, None, 1]
    assert Examples.among(labels, range(3)) == Examples([0, 2], [1, 0])
    assert Examples.among(labels, range(3, 5)) == Examples([4], [1])
    batch = Examples([4, 0], [1, 0]).batch(torch.arange(5.0))
    assert batch.states.tolist() == [4.0, 0.0]
    assert batch.labels.tolist() == [1, 0]


def test_scores_are_standardised_by_the_training_prompts():
    states = torch.arange(12.0).view(3, 2, 2)
    found = with_score(states, torch.tensor([1.0, 3.0, 10.0]), Examples([0, 1], [0, 1]))
    assert found.shape == (3, 1, 3)
    assert torch.equal(found[:, 0, :2], states[:, 0])
    assert found[:, 0, 2].tolist() == [-1.0, 1.0, 8.0]


def test_a_full_batch_trains_as_the_released_code_by_hand(tmp_path):
    """Adam without decay on all examples at once: betas 0.9 and 0.999, no clipping."""
    torch.manual_seed(1)
    states, training = torch.randn(6, 2, 4), Examples([0, 2, 3, 5], [1, 0, 0, 1])
    config = DecisionConfig(
        steps=3, learning_rate=0.1, betas=(0.9, 0.999), weight_decay=0.0, gradient_clip=1e6,
        full_batch=True, rare_classes="as_is", dropout=0.0, validate_every=100,
    )  # fmt: skip
    held_out = Examples([1], [0])
    found = train_decision_model(config, tmp_path, ConsoleLog(), states, training, held_out)
    torch.manual_seed(config.seed)
    plain = DecisionModel(4)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(plain(states[[0, 2, 3, 5]]), torch.tensor([1, 0, 0, 1]))
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(found.linear.weight, plain.linear.weight, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="full_batch takes each prompt once"):
        DecisionConfig(full_batch=True, rare_classes="resample")
