import json
from collections import Counter

import pytest

from data.scenes.grammar import (
    CELLS,
    GROUNDS,
    RELATIONS,
    SIZES,
    SPLITS,
    Scene,
    World,
    held_out_ground,
    held_out_pair,
    is_new,
)
from data.scenes.objects import THINGS

WORLD = World(40)


def compositions(scenes):
    pairs, grounds = set(), set()
    for scene in scenes:
        names = [g.name for g in scene.groups]
        pairs |= {tuple(sorted((a, b))) for i, a in enumerate(names) for b in names[:i]}
        grounds |= {(name, scene.ground) for name in names}
    return pairs, grounds


def test_held_out_compositions_never_occur_in_training():
    train_pairs, train_grounds = compositions(WORLD.scene("train", i) for i in range(20_000))
    new = [WORLD.scene("test_new", i) for i in range(2_000)]
    for scene in new:
        pairs, grounds = compositions([scene])
        assert not pairs <= train_pairs or not grounds <= train_grounds
    assert not any(held_out_pair(a, b) for a, b in train_pairs)
    assert not any(held_out_ground(n, g) for n, g in train_grounds)
    # The other way round: what is not held out is seen, and enough is held out.
    names = [t.name for t in THINGS[:40]]
    allowed = {(n, g) for n in names for g in GROUNDS if not held_out_ground(n, g)}
    assert train_grounds == allowed
    assert 0.04 < 1 - len(allowed) / (40 * len(GROUNDS)) < 0.10


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_other_splits_hold_seen_compositions_and_their_own_scenes(split):
    scenes = [WORLD.scene(split, i) for i in range(500)]
    assert not any(map(is_new, scenes))
    others = [WORLD.scene(s, i) for s in SPLITS if s != split for i in range(500)]
    assert scenes != others[:500]


def test_a_scene_depends_on_split_and_index_alone():
    one = [WORLD.scene("test", i) for i in (5, 3, 9)]
    again = [World(40).scene("test", i) for i in (5, 3, 9)]
    assert one == again
    stream = WORLD.scenes("test", 3)
    assert [next(stream) for _ in range(7)][::2] == [WORLD.scene("test", i) for i in (3, 5, 7, 9)]


def test_truth_serialises():
    for i in range(200):
        scene = WORLD.scene("train", i)
        assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene


def test_things_lie_inside_apart_and_as_the_relation_says():
    kinds = Counter()
    for i in range(3_000):
        scene = WORLD.scene("train", i)
        kinds[len(scene.groups), sum(g.number for g in scene.groups) > 1] += 1
        covered = Counter()
        for group in scene.groups:
            assert len(group.places) == group.number <= 3
            edge = SIZES[group.size]
            for x, y in group.places:
                assert 0 <= x <= CELLS - edge
                assert 0 <= y <= CELLS - edge
                covered.update((x + a, y + b) for a in range(edge) for b in range(edge))
        assert max(covered.values()) == 1
        if scene.relation:
            assert scene.relation in RELATIONS
            axis = 0 if scene.relation in ("left of", "right of") else 1
            ends = [
                (min(p[axis] for p in g.places), max(p[axis] for p in g.places) + SIZES[g.size])
                for g in scene.groups
            ]
            for other in ends[1:]:
                if scene.relation in ("left of", "above"):
                    assert ends[0][1] <= other[0]
                else:
                    assert ends[0][0] >= other[1]
    assert len(kinds) == 4  # one thing, several of a kind, two kinds, three kinds


def test_a_larger_world_has_more_objects():
    names = {g.name for i in range(3_000) for g in World(len(THINGS)).scene("train", i).groups}
    assert names == {t.name for t in THINGS}
    assert len(THINGS) >= 100
    assert len({t.name for t in THINGS}) == len({t.plural for t in THINGS}) == len(THINGS)
