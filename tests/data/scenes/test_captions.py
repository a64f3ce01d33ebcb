import re

import pytest

from data.scenes.captions import (
    GROUND_WORDS,
    LENGTHS,
    OPPOSITE,
    PLACE_WORDS,
    RELATION_WORDS,
    SIZE_WORDS,
    caption,
    describe,
)
from data.scenes.grammar import PLAIN, World
from data.scenes.objects import BY_NAME
from data.scenes.randomness import Draws

WORLD = World(120)
SCENES = [WORLD.scene("train", i) for i in range(1_500)]


@pytest.mark.parametrize("length", LENGTHS)
def test_captions_say_the_whole_truth(length):
    for i, scene in enumerate(SCENES):
        said = describe(scene, length, Draws(i)).lower()
        for group in scene.groups:
            thing = BY_NAME[group.name]
            noun = thing.name if group.number == 1 else thing.plural
            sizes = "|".join(SIZE_WORDS[group.size])
            number = {1: "an?", 2: "(two|a pair of)", 3: "three"}[group.number]
            assert re.search(rf"\b{number} ({sizes}) ?{noun}\b".replace("() ?", ""), said), said
        assert any(w in said for w in GROUND_WORDS.get(scene.ground, (scene.ground, "grey"))), said
        if scene.place:
            assert any(w in said for w in PLACE_WORDS[scene.place]), said
        if scene.relation:
            words = RELATION_WORDS[scene.relation] + RELATION_WORDS[OPPOSITE[scene.relation]]
            assert any(f" {w} " in f" {said} " for w in words), said


def test_relations_are_said_the_right_way_round():
    checked = 0
    for i, scene in enumerate(SCENES):
        if len(scene.groups) != 2 or not scene.relation:
            continue
        said = describe(scene, "phrase", Draws(i))
        nouns = [
            BY_NAME[g.name].name if g.number == 1 else BY_NAME[g.name].plural for g in scene.groups
        ]
        first_named = said.index(f"{nouns[0]}") < said.index(f"{nouns[1]}")
        if nouns[0] in nouns[1] or nouns[1] in nouns[0]:
            continue
        relation = scene.relation if first_named else OPPOSITE[scene.relation]
        between = re.search(rf"{nouns[0]}(.*){nouns[1]}|{nouns[1]}(.*){nouns[0]}", said)
        words = between[1] or between[2]
        assert any(f" {w} " in words for w in RELATION_WORDS[relation]), (said, scene)
        checked += 1
    assert checked > 300


def test_captions_vary_and_are_reproducible():
    said = [caption(s, "train", i) for i, s in enumerate(SCENES)]
    assert len(set(said)) > 0.98 * len(said)
    assert said == [caption(s, "train", i) for i, s in enumerate(SCENES)]
    assert said != [caption(s, "train", i, variant=1) for i, s in enumerate(SCENES)]


def test_lengths():
    words = {
        length: [len(describe(s, length, Draws(i)).split()) for i, s in enumerate(SCENES)]
        for length in LENGTHS
    }
    mean = {k: sum(v) / len(v) for k, v in words.items()}
    assert mean["phrase"] < mean["sentence"] < mean["long"]
    assert sum(w >= 28 for w in words["long"]) > 0.5 * len(SCENES)


def test_plain_grounds_are_colours():
    assert not set(PLAIN) & set(GROUND_WORDS)
