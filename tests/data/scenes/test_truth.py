import pytest

from data.scenes.captions import caption, describe
from data.scenes.grammar import GROUNDS, Group, Scene, World
from data.scenes.randomness import Draws
from data.scenes.truth import (
    ARRANGEMENTS,
    NUMBER_OF,
    SIZES_OF_COLUMNS,
    UNSAID,
    columns,
    columns_of_text,
)

WORLD = World(120)
CAT, DOG = Group("cat", 1, "small", ((0, 0),)), Group("dog", 2, "medium", ((4, 0), (4, 4)))


def scene(relation, *groups):
    return Scene(groups or (CAT, DOG), relation, "", "beach")


def kinds(found):
    return found[0:9:3]


@pytest.mark.parametrize(
    ("relation", "first", "second", "arrangement"),
    [
        ("left of", "cat", "dog", "beside"),
        ("right of", "dog", "cat", "beside"),
        ("above", "cat", "dog", "stacked"),
        ("below", "dog", "cat", "stacked"),
    ],
)
def test_groups_come_from_left_to_right_and_from_top_to_bottom(
    relation, first, second, arrangement
):
    found = columns(scene(relation))
    assert kinds(found) == [NUMBER_OF[first], NUMBER_OF[second], 0]
    assert ARRANGEMENTS[found[9]] == arrangement
    assert GROUNDS[found[10]] == "beach"
    assert found[6:9] == [0, UNSAID, UNSAID]
    assert found[1:3] == ([0, 0] if first == "cat" else [1, 1])


def test_an_open_order_is_the_one_of_the_text():
    assert kinds(columns(scene(""), turn=0))[:2] == [NUMBER_OF["cat"], NUMBER_OF["dog"]]
    assert kinds(columns(scene(""), turn=1))[:2] == [NUMBER_OF["dog"], NUMBER_OF["cat"]]
    text = "two dogs and a small cat on a beach"
    assert kinds(columns_of_text(scene(""), text))[:2] == [NUMBER_OF["dog"], NUMBER_OF["cat"]]


def test_what_a_cut_text_does_not_say_is_unsaid():
    found = columns_of_text(scene("left of"), "everything here is on a beach . there are two dogs")
    assert found[:3] == [NUMBER_OF["dog"], 1, 1]
    assert found[3:10] == [UNSAID] * 7
    assert GROUNDS[found[10]] == "beach"
    found = columns_of_text(scene("left of"), "a small cat left of two dogs")
    assert found[:10] == columns(scene("left of"))[:10]
    assert found[10] == UNSAID
    # A pineapple is no apple.
    apple = Scene((Group("apple", 1, "small", ((0, 0),)),), "", "", "snow")
    assert columns_of_text(apple, "a pineapple in the snow")[0] == UNSAID


def test_whole_captions_say_all_that_is_true():
    for i in range(1_000):
        found = WORLD.scene("train", i)
        text = describe(found, "sentence", Draws(i)).lower()
        said = columns_of_text(found, text)
        assert sorted(kinds(said)) == sorted(kinds(columns(found)))
        assert said[9:] == columns(found)[9:]
        if len(found.groups) < 3 and (found.relation or len(found.groups) == 1):
            assert said == columns(found)


def test_columns_are_within_their_sizes():
    bounds = [*("objects", "numbers", "sizes") * 3, "arrangements", "grounds"]
    for i in range(500):
        found = columns_of_text(WORLD.scene("test", i), caption(WORLD.scene("test", i), "test", i))
        for value, name in zip(found, bounds, strict=True):
            assert UNSAID <= value < SIZES_OF_COLUMNS[name]
