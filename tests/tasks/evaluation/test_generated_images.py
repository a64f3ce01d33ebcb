"""Scores of the generation suite over several seeds, by hand."""

import pytest

from tasks.evaluation.generated_images import over_seeds


def test_seeds_are_summed_up_by_hand():
    found = over_seeds([{"a": 1.0, "a_se": 0.5}, {"a": 3.0, "a_se": 0.7}])
    assert found == pytest.approx({"a": 2.0, "a_se": 0.6, "a_sd": 2**0.5})
    assert over_seeds([{"a": 1.0}]) == {"a": 1.0}


def test_a_measure_that_some_seeds_lack_is_of_those_that_have_it():
    found = over_seeds([{"a": 1.0}, {"a": 3.0, "order": 1.0}, {"a": 2.0, "order": 0.0}])
    assert found == pytest.approx({"a": 2.0, "a_sd": 1.0, "order": 0.5, "order_sd": 0.5**0.5})
