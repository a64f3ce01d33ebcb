"""Ranks and recall against hand-computed cases."""

import pytest
import torch

from gill.evaluation.retrieval import ranks, recall


def test_ranks_by_hand():
    text = torch.eye(3)
    image = torch.tensor([[0.9, 0.0, 0.1], [1.0, 0.2, 0.0], [0.0, 0.5, 0.8]])
    # Query 0 scores (0.9, 1.0, 0.0): one better. Query 1 (0, 0.2, 0.5): one. Query 2: none.
    assert ranks(text, image).tolist() == [1, 1, 0]
    found = recall(text, image, at=(1, 2))
    assert found["t2i_r1"] == pytest.approx(1 / 3)
    assert found["t2i_r2"] == pytest.approx(1.0)


def test_equal_vectors_are_no_success():
    same = torch.ones(4, 2)
    assert ranks(same, same).tolist() == [3, 3, 3, 3]


def test_ranks_do_not_depend_on_the_chunk():
    torch.manual_seed(0)
    a, b = torch.randn(50, 8), torch.randn(50, 8)
    assert torch.equal(ranks(a, b), ranks(a, b, chunk=7))
