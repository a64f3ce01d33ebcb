"""Stories and dialogues of the embedded world."""

import json

import numpy as np

from data.benchmarks.contexts import ContextImage
from data.benchmarks.synthetic_contexts import dialogues, shown_stories, told_stories
from data.scenes.captions import ground_forms, things_in
from data.scenes.grammar import Scene, is_new
from data.scenes.painter import paint

COUNT = 40


def names(scene):
    return {group.name for group in scene.groups}


def truth_of(case):
    return Scene.from_dict(json.loads(case.truth))


def text_of(pieces):
    return " ".join(piece for piece in pieces if isinstance(piece, str))


def test_a_told_story_follows_from_all_captions_and_not_from_the_last():
    for case in told_stories(COUNT).cases:
        scene = truth_of(case)
        assert is_new(scene)
        assert not things_in(text_of(case.contexts["1 caption"]))
        assert any(form in case.contexts["1 caption"][0] for form in ground_forms(scene.ground))
        assert things_in(text_of(case.contexts["5 captions"])) == names(scene)
        assert np.array_equal(np.asarray(case.target.open()), paint(scene))


def test_a_shown_story_names_nothing_and_its_images_show_the_cast():
    for case in shown_stories(COUNT).cases:
        pieces = case.contexts["5 captions, 4 images"]
        assert not things_in(text_of(pieces))
        images = [piece for piece in pieces if isinstance(piece, ContextImage)]
        assert len(images) == 4
        assert case.target.name not in {image.name for image in images}
        scene = truth_of(case)
        cast = [np.asarray(image.open()) for image in images]
        assert all((pixels != paint(scene)).any() for pixels in cast), "another ground"


def test_a_dialogue_tells_everything_in_ten_rounds_and_less_in_fewer():
    found = dialogues(COUNT, (1, 5, 10)).cases
    known = {"1 round": 0, "5 rounds": 0, "10 rounds": 0}
    for case in found:
        scene = truth_of(case)
        (whole,) = case.contexts["10 rounds"]
        assert whole.count("Q: ") == 10
        assert things_in(whole) == names(scene)
        assert any(form in whole for form in ground_forms(scene.ground))
        for name in known:
            known[name] += things_in(case.contexts[name][0]) == names(scene)
        assert whole.startswith(case.contexts["5 rounds"][0])
    assert known["1 round"] < known["5 rounds"] < known["10 rounds"] == COUNT


def test_cases_are_the_same_every_time_and_differ_from_one_another():
    assert told_stories(3) == told_stories(3)
    assert len({case.truth for case in told_stories(COUNT).cases}) == COUNT
