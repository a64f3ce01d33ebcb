"""Scores of what is seen in an image, factor by factor, by hand."""

import pytest

from data.scenes.grammar import GROUNDS, Group, Scene
from data.scenes.scoring import KIND_OF, SIZE_NAMES, Seen, score

CAT = Group("cat", 1, "small", ((0, 0),))
DOGS = Group("dog", 2, "medium", ((4, 0), (4, 4)))
SCENE = Scene((CAT, DOGS), "left of", "", "beach")
BEACH = GROUNDS.index("beach")


def seen(name, size, x, y):
    return Seen(KIND_OF[name], SIZE_NAMES.index(size), x, y)


TRUTH = [seen("cat", "small", 1.5, 1.5), seen("dog", "medium", 6, 2), seen("dog", "medium", 6, 6)]


def test_all_of_it_seen():
    assert set(score(SCENE, TRUTH, BEACH).values()) == {1.0}


def test_a_missing_dog_costs_its_number_and_all():
    found = score(SCENE, TRUTH[:2], BEACH)
    assert found["number"] == 0.5
    assert found["all"] == 0.0
    assert found["object_f1"] == found["size"] == found["relation"] == found["order"] == 1.0


def test_a_stranger_costs_the_objects_alone():
    found = score(SCENE, [*TRUTH, seen("owl", "small", 4, 4)], BEACH)
    assert found["object_f1"] == pytest.approx(2 * 2 / (3 + 2))
    assert found["all"] == 0.0
    assert {k for k, v in found.items() if v < 1} == {"object_f1", "all"}


def test_a_relation_needs_both_and_an_order_is_left_out_without_them():
    found = score(SCENE, TRUTH[1:], BEACH)
    assert found["relation"] == 0.0
    assert "order" not in found  # nobody knows: an order is counted where both are there


def test_the_size_is_what_most_of_a_kind_have():
    wrong = [TRUTH[0], seen("dog", "large", 6, 2), seen("dog", "large", 6, 6)]
    assert score(SCENE, wrong, BEACH)["size"] == 0.5


@pytest.mark.parametrize(
    ("relation", "holds"),
    [("left of", True), ("right of", False), ("above", False), ("below", False)],
)
def test_centres_must_lie_a_cell_apart_in_the_direction(relation, holds):
    scene = Scene((CAT, Group("dog", 1, "small", ((0, 0),))), relation, "", "beach")
    for gap in (1.0, 0.9):
        pair = [seen("cat", "small", 3, 3), seen("dog", "small", 3 + gap, 3)]
        assert score(scene, pair, BEACH)["order"] == float(holds and gap == 1.0)


def test_of_three_kinds_the_first_stands_so_to_each_other():
    owl = Group("owl", 1, "small", ((4, 4),))
    scene = Scene((CAT, Group("dog", 1, "small", ((0, 4),)), owl), "above", "", "snow")
    places = [seen("cat", "small", 3, 1), seen("dog", "small", 1, 5), seen("owl", "small", 6, 5)]
    assert score(scene, places, GROUNDS.index("snow"))["relation"] == 1.0
    raised = [*places[:2], seen("owl", "small", 6, 1)]
    assert score(scene, raised, GROUNDS.index("snow"))["relation"] == 0.0


@pytest.mark.parametrize(
    ("place", "x", "y"),
    [
        ("at the top", 4, 2.4),
        ("at the bottom", 4, 5.6),
        ("on the left", 2.4, 4),
        ("on the right", 5.6, 4),
        ("in the middle", 3, 5),
    ],
)
def test_places_of_one_thing(place, x, y):
    """A small thing is three cells wide: it is at an edge if less than a cell is free there."""
    scene = Scene((CAT,), "", place, "beach")
    assert score(scene, [seen("cat", "small", x, y)], BEACH)["place"] == 1.0
    assert score(scene, [seen("cat", "small", x, y)] * 2, BEACH)["place"] == 0.0
    shifted = {"in the middle": (2.9, 5)}.get(place, (x + (4 - x) / 8, y + (4 - y) / 8))
    assert score(scene, [seen("cat", "small", *shifted)], BEACH)["place"] == 0.0


def test_another_ground_is_wrong():
    found = score(SCENE, TRUTH, BEACH - 1)
    assert (found["ground"], found["all"], found["number"]) == (0.0, 0.0, 1.0)
