"""Examples, class weights and inputs of the classifier that retrieves or generates."""

import pytest
import torch

from tasks.training.decision_model import Examples, class_weights, with_score


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
