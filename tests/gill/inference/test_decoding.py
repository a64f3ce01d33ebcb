"""Choosing a token, and cutting what was chosen into text and images."""

import pytest
import torch

from gill.inference.decoding import choose, runs_of_text


def test_the_nucleus_is_the_smallest_set_with_enough_probability():
    logits = torch.tensor([[0.5, 0.1, 0.3, 0.1]]).log()
    picked = lambda u, p: int(choose(logits, 1.0, p, torch.tensor([u])))  # noqa: E731
    assert [picked(u, 0.8) for u in (0.0, 0.62, 0.63, 0.999)] == [0, 0, 2, 2]
    assert [picked(u, 0.4) for u in (0.0, 0.999)] == [0, 0]
    assert {picked(u, 1.0) for u in (0.0, 0.6, 0.85, 0.95)} == {0, 1, 2, 3}
    sharp = choose(logits, 0.01, 1.0, torch.tensor([0.99]))
    assert int(sharp) == int(choose(logits, 0.0, 1.0, torch.tensor([0.99]))) == 0


def test_greedy_takes_the_largest_whatever_the_random_number():
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert choose(logits, 0.0, 0.5, torch.tensor([0.999, 0.0])).tolist() == [1, 0]


def test_temperature_flattens():
    logits = torch.tensor([[2.0, 0.0]])
    uniform = torch.tensor([0.75])  # beyond the first token's share of 0.62 at temperature 4
    assert choose(logits, 1.0, 1.0, uniform).tolist() == [0]
    assert choose(logits, 4.0, 1.0, uniform).tolist() == [1]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], [([], False)]),
        ([5, 6], [([5, 6], False)]),
        ([5, 9, 9, 6], [([5], True), ([], True), ([6], False)]),
        ([9], [([], True), ([], False)]),
    ],
)
def test_runs_of_text_by_hand(tokens, expected):
    assert list(runs_of_text(tokens, 9)) == expected
