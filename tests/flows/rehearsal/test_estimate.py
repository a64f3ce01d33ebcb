"""The whole run from a rehearsal, by hand."""

from dataclasses import replace

import pytest
from micro_rehearsal import MICRO

from data.manifest import Manifest
from flows.recipes import resolve
from flows.rehearsal.estimate import Measured, estimates, unit_seconds
from flows.rehearsal.work import Scale


def measured(stage, seconds, tables=0.0, others=0.0, host=0.0, gpu=None, **rates):
    named = {f"{unit.replace('_', ' ')}/s": rate for unit, rate in rates.items()}
    return Measured(stage, seconds, named, tables, others, host, gpu)


def estimated(stage, folder, **settings):
    config = resolve("opt-6.7b", MICRO.overrides(folder))
    rehearsed = Scale(config, MICRO.parts, MICRO.pairs)
    whole = Scale(resolve("opt-6.7b", settings), MICRO.published, MICRO.whole)
    return estimates({stage.stage: stage}, rehearsed, whole)[stage.stage]


def test_loading_is_counted_once_and_each_pair_by_its_rate(tmp_path):
    # 28 captions at 4 a second are 7 of 10 seconds; 1,100 captions are 275 s beside the other 3.
    found = estimated(measured("text_targets", 10.0, 1600.0, 7.0, captions=4.0), tmp_path)
    assert (found.unit, found.amount) == ("captions", 1100)
    assert found.seconds == pytest.approx(278.0)
    assert found.bytes == pytest.approx(1600 * 1100 / 28 + 7)


def test_a_deeper_tower_takes_as_many_times_longer_as_it_has_more_operations(tmp_path):
    # 17 positions, a layer of width 32: 2*17*12*32**2 + 4*17**2*32 = 454,784; patches 2*17*192*32.
    per_layer, patches = 454_784, 208_896
    assert MICRO.parts.vision.image_operations == 2 * per_layer + patches
    found = estimated(measured("clip_features", 8.0, images=4.0), tmp_path)
    ratio = (3 * per_layer + patches) / (2 * per_layer + patches)
    assert found.seconds == pytest.approx(1.0 + 1100 / 4 * ratio)


def test_steps_count_their_validations_and_the_deeper_model(tmp_path):
    stage = measured("adapters", 30.0, 160.0, 40.0, 1e6)
    stage = replace(stage, rates={"steps/s": 0.1, "[IMG] states/s": 8.0})
    # Rehearsed: 2 steps and one validation of 16 pairs, half as long, are 2.04 steps and 20.4 s; 28
    # states take 3.5 s; 6.1 s are left.
    layer, head = 4 * 32**2 + 2 * 32 * 64, 607 * 32

    def step(layers):
        tokens = 2 * (4 + 11) + 11 + 2 * 8  # captioning and back, prefix, [IMG] and back
        return tokens * layers * layer + (2 * 11 + 2) * head

    steps = 20_000 + 0.5 * 100 * 50 / 200
    expected = 6.1 + 10 * steps * step(3) / step(2) + 1100 / 8 * 3 / 2
    found = estimated(stage, tmp_path)
    assert found.seconds == pytest.approx(expected)
    assert found.bytes == pytest.approx(160 * 1100 / 28 + 40)
    assert found.host == pytest.approx(1e6 + 2 * layer)  # a layer more, in 16 bits


def test_images_cost_their_passes_and_their_size(tmp_path):
    # Guidance doubles the passes, and the scheduler makes one step more than it is asked for.
    image = {n: MICRO.parts.vision.with_layers(n).image_operations for n in (2, 3)}
    few, many = 2 * 2 * 100 + 50 + image[2], 2 * 51 * 400 + 200 + image[3]
    rates = {"prompts scored/s": 0.5, "steps/s": 50.0, "with_retrieval_score_steps/s": 25.0}
    stage = replace(measured("decision", 50.0), rates=rates)
    found = estimated(stage, tmp_path)
    prompts = 50  # 1,200 are asked for and the split has no more
    assert (found.unit, found.amount) == ("prompts scored", prompts)
    # The 16 prompts take 32 of 50 s, 5 votes instead of 4; 50 and 50 steps 1 and 2, later 2,000.
    scored = prompts / 0.5 * 5 / 4 * many / few
    assert found.seconds == pytest.approx(50 - 35 + scored + 2000 / 50 + 2000 / 25)


def test_memory_of_a_gpu_grows_with_the_layers_of_a_training_alone(tmp_path):
    layer = 2 * (4 * 32**2 + 2 * 32 * 64)  # bytes
    held = 2 * layer
    found = estimated(measured("adapters", 1.0, gpu=held + 1000.0), tmp_path)
    assert found.gpu == pytest.approx(1000 * 3 / 2 + held + layer)
    assert estimated(measured("mapper", 1.0, gpu=50.0), tmp_path).gpu == 50.0
    assert estimated(measured("decision", 1.0, gpu=50.0), tmp_path).gpu is None  # smaller images
    assert estimated(measured("mapper", 1.0), tmp_path).gpu is None


def test_what_has_no_rate_has_the_time_that_is_left():
    stage = measured("evaluate", 10.0, images=2.0)
    assert unit_seconds(stage, {"images": 8, "captions": 3}) == {"images": 4.0, "captions": 6.0}
    assert unit_seconds(measured("x", 3.0, images=1.0), {"images": 8, "captions": 3}) == {
        "images": 8.0,
        "captions": 0.0,
    }


def test_what_a_manifest_says(tmp_path):
    files = {"states/a.parquet": {"bytes": 5}, "b.safetensors": {"bytes": 2}}
    took = {"seconds": 3.5, "measured": {"steps/s": 2.0, "peak_memory_bytes": 9.0}}
    manifest = Manifest("adapters", 1, "f", {}, {}, {"rows_per_second": 1.0}, files, took)
    assert Measured.of(manifest) == Measured("adapters", 3.5, {"steps/s": 2.0}, 5, 2, 9.0, None)
