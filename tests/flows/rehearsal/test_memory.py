"""What a stage holds beside what was measured, by hand for the published sizes."""

import pytest

from flows.recipes import resolve
from flows.rehearsal.memory import tables, weights
from flows.rehearsal.sizes import REHEARSALS, Splits
from flows.rehearsal.work import Scale

OPT = REHEARSALS["opt-6.7b"]


def test_weights_whose_depth_can_be_cut():
    assert weights("adapters", OPT.published) == pytest.approx(12.9e9, rel=0.01)
    assert weights("clip_features", OPT.parts) == 2 * 4 * 12 * 1024**2
    assert weights("mapper", OPT.published) == 0


def test_what_the_mapper_trains_on_and_validates_with():
    scale = Scale(resolve("opt-6.7b", {}), OPT.published, Splits(20_000, 10, 0))
    state, target = 8 * 4096, 77 * 768
    ahead = 2 * 8 * 1000 * (2 * state + target)
    assert tables("mapper", scale) == ahead + 10 * (2 * state + 10 * target)


def test_the_index_is_held_where_images_are_retrieved():
    config = resolve("opt-6.7b", {})
    few, many = (Scale(config, OPT.published, Splits(n, 0, 0)) for n in (0, 1000))
    assert tables("decision", many) - tables("decision", few) == 1000 * (256 * 2 + 64 + 100)
    assert tables("index", many) == 0
