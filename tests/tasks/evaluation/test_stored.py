"""Stored images and features by their keys."""

import numpy as np
import pytest
from small_store import VISION

from data.lookup import MissingKeyError


def test_images_and_features_keep_the_order_of_the_keys(small, stored):
    wanted = ["test/5", "train/0", "test/5"]  # of other splits and shards, one twice
    images = stored.opened(wanted)
    assert images[0].tobytes() == images[2].tobytes() != images[1].tobytes()
    pooled = stored.pooled(wanted).numpy()
    assert pooled.shape == (3, VISION)
    for row, key in zip(pooled, wanted, strict=True):
        split, _, number = key.partition("/")
        np.testing.assert_array_equal(row, small.features_of[split][int(number)])


def test_nothing_asked_for_is_nothing_read(stored):
    assert stored.opened([]) == []


def test_a_key_that_is_not_stored_is_named(stored):
    with pytest.raises(MissingKeyError, match="test/99"):
        stored.pooled(["test/0", "test/99"])
