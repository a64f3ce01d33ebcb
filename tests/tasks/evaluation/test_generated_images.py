"""Scores of the generation suite over several seeds, by hand."""

import pytest

from tasks.evaluation.generated_images import over_seeds
from tasks.evaluation.prompt_scores import seeds_of


def test_seeds_are_summed_up_by_hand():
    found = over_seeds([{"a": 1.0, "a_se": 0.5}, {"a": 3.0, "a_se": 0.7}])
    assert found == pytest.approx({"a": 2.0, "a_se": 0.6, "a_sd": 2**0.5})
    assert over_seeds([{"a": 1.0}]) == {"a": 1.0}


def test_each_place_has_a_seed_of_its_own():
    seeds = [seed for first in (1, 2) for seed in seeds_of(first, range(64))]
    assert len(set(seeds)) == 128
    assert seeds_of(1, range(2, 4)) == seeds[2:4]
