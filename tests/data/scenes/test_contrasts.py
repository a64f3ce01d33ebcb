import pytest

from data.scenes.contrasts import FACTORS, contrast
from data.scenes.grammar import World
from data.scenes.painter import paint
from data.scenes.randomness import Draws
from data.scenes.scoring import KIND_OF, SIZE_NAMES, SIZES, Seen, score

WORLD = World(40)
SCORES = {
    "object": "object_f1",
    "number": "number",
    "size": "size",
    "relation": "relation",
    "ground": "ground",
}


def perfect(scene):
    from data.scenes.grammar import GROUNDS

    seen = [
        Seen(
            KIND_OF[g.name], SIZE_NAMES.index(g.size), x + SIZES[g.size] / 2, y + SIZES[g.size] / 2
        )
        for g in scene.groups
        for x, y in g.places
    ]
    return seen, GROUNDS.index(scene.ground)


@pytest.mark.parametrize("factor", FACTORS)
def test_a_contrast_differs_in_its_factor_and_nothing_else(factor):
    made = 0
    for i in range(400):
        scene = WORLD.scene("test", i)
        other = contrast(scene, factor, WORLD, Draws(1, i))
        if other is None:
            continue
        made += 1
        assert (paint(other) != paint(scene)).any()
        scores = score(scene, *perfect(other))
        assert scores.pop(SCORES[factor]) < 1
        assert scores.pop("all") == 0
        if factor != "relation":
            scores.pop("order", None)
            scores.pop("relation", None)
        if factor == "object":
            scores = {"ground": scores["ground"]}
        scores.pop("order", None)
        scores.pop("place", None)
        assert set(scores.values()) == {1.0}
    assert made > 50


def test_the_truth_itself_scores_one_on_every_factor():
    for i in range(500):
        scene = WORLD.scene("test", i)
        assert set(score(scene, *perfect(scene)).values()) == {1.0}


def test_nothing_seen_scores_nought():
    scene = next(s for s in (WORLD.scene("test", i) for i in range(99)) if s.relation)
    found = score(scene, [], 0 if scene.ground != "white" else 1)
    assert "order" not in found
    assert set(found.values()) == {0.0}
