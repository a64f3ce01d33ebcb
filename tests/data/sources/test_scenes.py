"""The embedded world as a source of pairs."""

import io
import json
from itertools import islice

import numpy as np
from PIL import Image

from data.scenes.captions import things_in
from data.scenes.grammar import Scene, is_new
from data.scenes.painter import paint
from data.sources.scenes import ScenesAndDrawings

SOURCE = ScenesAndDrawings(scenes=60)


def test_a_scene_is_stored_with_its_truth():
    rows = [row for row in islice(SOURCE.pairs("train"), 30) if row.truth]
    assert len(rows) == 24
    for row in rows:
        scene = Scene.from_dict(json.loads(row.truth))
        with Image.open(io.BytesIO(row.image)) as image:
            assert np.array_equal(np.asarray(image), paint(scene))
        assert things_in(row.caption) == {group.name for group in scene.groups}


def test_splits_have_scenes_beside_drawings_and_new_compositions_are_held_out():
    for split, count, drawings in (("train", 60, 1289), ("validation", 6, 200), ("test", 12, 167)):
        rows = list(SOURCE.pairs(split))
        scenes = [row for row in rows if row.truth]
        assert (len(scenes), len(rows) - len(scenes)) == (count, drawings), split
        assert len({row.key for row in rows}) == len(rows)
        for row in scenes:
            new = is_new(Scene.from_dict(json.loads(row.truth)))
            assert new == (row.source == "new_scenes")
        assert sum(row.source == "new_scenes" for row in scenes) == (6 if split == "test" else 0)


def test_the_first_rows_of_a_split_are_a_mixture():
    assert [bool(row.truth) for row in islice(SOURCE.pairs("test"), 10)] == (
        [True] * 4 + [False]
    ) * 2


def test_a_limit_and_the_number_of_scenes_are_part_of_the_identity():
    assert len(list(ScenesAndDrawings(60, limit=7).pairs("train"))) == 7
    identities = {s.identity() for s in (SOURCE, ScenesAndDrawings(60, 7), ScenesAndDrawings(70))}
    assert len(identities) == 3
