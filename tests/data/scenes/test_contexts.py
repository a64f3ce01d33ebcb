"""Stories and dialogues by the grammar: what is said where."""

import pytest

from data.scenes.captions import ground_forms, things_in
from data.scenes.contexts import LENGTH, ROUNDS, UNSAID, dialogue, story
from data.scenes.grammar import World

WORLD, COUNT = World(), 60


def names(scene):
    return {group.name for group in scene.groups}


@pytest.mark.parametrize("shown", [False, True])
def test_a_story_keeps_its_cast_and_changes_its_ground(shown):
    for index in range(COUNT):
        told = story(WORLD, "test", index, shown)
        assert len(told.captions) == len(told.scenes) == LENGTH
        assert len({scene.groups for scene in told.scenes}) == 1
        assert all(scene.ground != told.scenes[-1].ground for scene in told.scenes[:-1])


def test_the_cast_comes_in_one_by_one():
    for index in range(COUNT):
        told = story(WORLD, "test", index)
        first, *others = (group.name for group in told.scenes[-1].groups)
        assert [things_in(caption) for caption in (told.captions[0], *told.captions[3:])] == [
            set(), set(), set()
        ]  # fmt: skip
        assert things_in(told.captions[1]) == {first}
        assert things_in(told.captions[2]) == ({first, *others} if others else set())
        ground = ground_forms(told.scenes[-1].ground)
        assert any(form in told.captions[-1] for form in ground)


def test_pronouns_agree_with_the_number():
    for index in range(COUNT):
        told = story(WORLD, "test", index)
        many = sum(group.number for group in told.scenes[-1].groups) > 1
        words = " ".join(told.captions[3:]).lower().split()
        wrong = {"they", "them", "are"} if not many else {"it's", "is"}
        assert not wrong & set(words), told.captions


def test_a_shown_story_says_only_where_the_last_image_is():
    for index in range(COUNT):
        told = story(WORLD, "test", index, shown=True)
        assert set(told.captions[:-1]) <= set(UNSAID)
        assert not things_in(told.captions[-1])


def test_a_dialogue_reveals_all_in_ten_rounds_in_no_fixed_order():
    first_answers = set()
    for index in range(COUNT):
        told = dialogue(WORLD, "test", index)
        text = " ".join(f"{q} {a}" for q, a in told.rounds)
        assert len(told.rounds) == ROUNDS
        assert len(set(told.rounds)) == ROUNDS
        assert things_in(text) == names(told.scene)
        assert any(form in text for form in ground_forms(told.scene.ground))
        first_answers.add(told.rounds[0][0])
    assert len(first_answers) > 5


def test_contexts_depend_on_split_and_index_alone():
    assert story(WORLD, "test", 3) == story(WORLD, "test", 3) != story(WORLD, "test", 4)
    assert dialogue(WORLD, "test", 3) == dialogue(WORLD, "test", 3)
    assert story(WORLD, "test", 3) != story(WORLD, "validation", 3)
