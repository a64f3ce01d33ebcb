"""What the source of an image rests on, row by row of a truth table."""

import pytest

from gill.inference.places import choose_source
from gill.inference.results import Decision

GENERATE, RETRIEVE = [0.9, 0.1], [0.2, 0.8]
NAMED = {"generate": 0.2, "retrieve": 0.8}


@pytest.mark.parametrize(
    ("probabilities", "indexed", "found", "choice", "expected"),
    [
        (GENERATE, True, True, None, ("generate", "decision model")),
        (RETRIEVE, True, True, None, ("retrieve", "decision model")),
        (RETRIEVE, True, True, "generate", ("generate", "asked for")),
        (GENERATE, True, True, "retrieve", ("retrieve", "asked for")),
        (RETRIEVE, False, False, None, ("generate", "no index")),
        (RETRIEVE, True, False, None, ("generate", "index used up")),
        (RETRIEVE, True, False, "retrieve", ("generate", "index used up")),
        (None, True, True, None, ("generate", "no decision model")),
        (None, True, True, "retrieve", ("retrieve", "asked for")),
    ],
)
def test_the_source_and_its_reason(probabilities, indexed, found, choice, expected):
    decision = choose_source(probabilities, indexed, found, choice)
    assert (decision.choice, decision.reason) == expected
    assert (decision.probabilities is None) == (probabilities is None)


def test_probabilities_are_named():
    assert choose_source(RETRIEVE, True, True, None) == Decision(
        "retrieve", NAMED, "decision model"
    )
