"""The rule of the votes, and the classifier."""

import pytest
import torch

from gill.decision import GENERATE, RETRIEVE, DecisionModel, confident_label, votes_from_scores


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        ("gen gen gen gen gen", GENERATE),
        ("gen gen gen gen ret", GENERATE),
        ("gen gen gen same same", GENERATE),
        ("gen gen gen ret same", GENERATE),
        ("gen gen gen ret ret", None),
        ("ret ret ret ret same", RETRIEVE),
        ("ret ret ret gen same", RETRIEVE),
        ("ret ret ret gen gen", None),
        ("gen gen ret ret same", None),
        ("same same same same gen", None),
    ],
)
def test_confident_label(votes, label):
    assert confident_label(votes.split()) is label


def test_votes_compare_with_a_margin():
    generated = torch.tensor([[0.5, 0.31, 0.1]])
    votes = votes_from_scores(generated, torch.tensor([0.3]), margin=0.05)
    assert votes == [["gen", "same", "ret"]]


def test_decision_reads_only_the_first_state():
    model = DecisionModel(4).eval()
    states = torch.randn(2, 3, 4)
    changed = states.clone()
    changed[:, 1:] = 9.0
    assert torch.equal(model(states), model(changed))
    assert torch.allclose(model.probabilities(states).sum(-1), torch.ones(2))
