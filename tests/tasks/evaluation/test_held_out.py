"""Held-out captions with all that is stored of them: the same rows, in the shards' order."""

import numpy as np
import pytest
import torch
from small_store import LLM, TARGET, R

from data.shards import ShardError
from tasks.evaluation.held_out import read_captions, read_held_out


def test_captions_of_a_split_with_their_states(small):
    found = read_captions(small.images, small.adapters, "validation")
    assert found.keys == small.keys("validation")
    assert found.captions == small.captions["validation"]
    assert found.states.shape == (6, R, LLM)
    assert torch.equal(found.states, torch.from_numpy(small.states_of["validation"]).float())


def test_features_and_targets_are_of_the_same_rows(small):
    found = read_held_out(small.images, small.features, small.targets, small.adapters)
    assert found.captions.keys == small.keys("test")
    np.testing.assert_array_equal(found.features.numpy(), small.features_of["test"])
    assert found.targets.shape == (6, *TARGET)
    np.testing.assert_array_equal(found.targets.numpy(), small.targets_of["test"])


def test_the_first_of_them_are_cut_alike(small):
    found = read_held_out(small.images, small.features, small.targets, small.adapters).first(2)
    assert len(found) == len(found.features) == len(found.targets) == 2
    assert found.captions.keys == ["test/0", "test/1"]
    part = found.captions.rows(slice(1, None))
    assert (part.keys, part.captions) == (["test/1"], [small.captions["test"][1]])
    assert torch.equal(part.states, found.captions.states[1:])
    assert len(found.first(99)) == 2


def test_a_split_that_there_is_not_is_named(small):
    with pytest.raises(ShardError, match="has no shards of the split 'held'"):
        read_captions(small.images, small.adapters, "held")
