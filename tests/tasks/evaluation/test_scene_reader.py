"""The scene reader as a metric: true scenes score one, others nought."""

import json

import pytest
import torch

from data.scenes.grammar import World
from data.scenes.painter import paint_all
from tasks.evaluation.scene_reader import MEASURES, SceneMeasure, scene_of

COUNT = 48


@pytest.fixture(scope="module")
def measure():
    return SceneMeasure.load(torch.device("cpu"))


@pytest.fixture(scope="module")
def scenes():
    return [World().scene("test_new", i) for i in range(COUNT)]


def truths(scenes):
    return [json.dumps(scene.to_dict()) for scene in scenes]


def pixels(scenes):
    return torch.from_numpy(paint_all(scenes)).permute(0, 3, 1, 2).float() / 255


def test_true_scenes_score_one_on_every_factor(measure, scenes):
    found = measure(pixels(scenes), truths(scenes))
    assert set(found) == set(MEASURES)
    for name, values in found.items():
        assert values.shape == (COUNT,)
        assert float(values.nanmean()) > 0.97, name


def test_other_scenes_score_nought(measure, scenes):
    found = measure(pixels(scenes), truths(scenes[1:] + scenes[:1]))
    assert float(found["object_f1"].mean()) < 0.2
    assert float(found["all"].mean()) < 0.05


def test_a_factor_that_a_scene_lacks_is_no_number(measure, scenes):
    found = measure(pixels(scenes), truths(scenes))
    for row, scene in enumerate(scenes):
        assert bool(found["relation"][row].isnan()) == (not scene.relation)
        assert bool(found["place"][row].isnan()) == (not scene.place)


def test_images_without_truth_have_no_score(measure, scenes):
    found = measure(pixels(scenes[:3]), ["", truths(scenes)[1], ""])
    assert found["object_f1"].isnan().tolist() == [True, False, True]


def test_images_of_another_size_are_read_too(measure, scenes):
    larger = pixels(scenes).repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert float(measure(larger, truths(scenes))["object_f1"].mean()) > 0.95


def test_a_truth_is_a_scene(scenes):
    assert [scene_of(truth) for truth in truths(scenes)] == scenes
