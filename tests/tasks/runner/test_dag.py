"""Stages wired to one another, and the artifacts that a configuration makes of them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from data.artifacts import ClipFeatures, ImageShards, TextTargets
from flows.pipeline import dag
from flows.recipes import resolve, tiny
from tasks.config.data import IndexConfig
from tasks.runner.dag import Dag, config_of, plan
from tasks.runner.fingerprint import stage_fingerprint
from tasks.runner.registry import stage_named
from tasks.stages import adapters, clip_features, download, index

pytestmark = pytest.mark.usefixtures("var")


@pytest.fixture
def small():
    """Three stages: images, their features, and the adapters of both."""
    made = Dag()
    images = made(download.run)
    features = made(clip_features.run, images)
    made(adapters.run, images=images, features=features)
    return made


def test_a_call_adds_a_stage_behind_those_that_make_its_inputs(small):
    assert list(small.stages) == ["download", "clip_features", "adapters"]
    assert small.makers["download"] == {}
    assert small.makers["adapters"] == {"images": "download", "features": "clip_features"}
    assert small.ancestors("adapters") == {"download", "clip_features"}
    assert small.ancestors("download") == set()


def test_what_a_call_returns_is_of_the_kind_that_the_stage_makes():
    made = Dag()
    images = made(download.run)
    assert type(images) is ImageShards
    assert type(made(clip_features.run, images)) is ClipFeatures
    assert images.stage == "download"


def test_an_input_of_another_kind_is_refused_by_name():
    made = Dag()
    images = made(download.run)
    with pytest.raises(TypeError, match="adapters needs ClipFeatures as 'features', not ImageShar"):
        made(adapters.run, images, images)
    with pytest.raises(TypeError, match="missing a required argument: 'features'"):
        made(adapters.run, images)
    with pytest.raises(TypeError, match="too many positional arguments"):
        made(clip_features.run, images, images)


def test_one_kind_may_stand_in_for_its_parent():
    """What the stage joint makes is both adapters and a mapper."""
    joint = dag("joint")
    assert joint.makers["decision"]["adapters"] == joint.makers["decision"]["mapper"] == "joint"


def prints(planned):
    return {name: one.artifact.fingerprint for name, one in planned.items()}


def test_artifacts_lie_in_the_store_under_their_fingerprints(var):
    planned = plan(dag("staged"), tiny())
    for name, one in planned.items():
        assert one.artifact.path == var / "store" / name / one.artifact.fingerprint
        assert one.artifact.stage == name
    assert [one.number for one in planned.values()] == list(range(1, len(planned) + 1))
    assert planned["mapper"].inputs["targets"] == planned["text_targets"].artifact
    assert isinstance(planned["text_targets"].artifact, TextTargets)


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"mapper.learning_rate": 0.5}, {"mapper", "decision", "evaluate"}),
        ({"index.splits": ["test"]}, {"index", "decision", "evaluate"}),
        ({"evaluate.seed": 5}, {"evaluate"}),
        ({"runtime.threads": 3}, set()),
        ({"adapters.checkpoint_every": 7}, set()),
    ],
)
def test_a_change_moves_what_depends_on_it_and_nothing_else(change, changed):
    before = prints(plan(dag("staged"), tiny()))
    after = prints(plan(dag("staged"), resolve("tiny", change)))
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_part_of_the_pipeline_keeps_numbers_and_fingerprints():
    stages = dag("staged")
    whole = plan(stages, tiny())
    part = plan(stages, tiny(), {"adapters", *stages.ancestors("adapters")})
    assert set(part) == {"download", "clip_features", "adapters"}
    for name, one in part.items():
        assert one.number == whole[name].number
        assert one.artifact == whole[name].artifact


def test_a_stage_that_recipes_do_not_know_runs_with_its_defaults():
    assert config_of(stage_named("index"), SimpleNamespace()) == IndexConfig()
    with pytest.raises(TypeError, match="index takes a IndexConfig"):
        config_of(stage_named("index"), SimpleNamespace(index=tiny().mapper))
    assert stage_named("index").declared == index.STAGE


def test_another_version_is_another_artifact():
    stage, config = stage_named("mapper"), tiny()
    newer = replace(stage, declared=replace(stage.declared, version=stage.declared.version + 1))
    first, second = (stage_fingerprint(s, config.mapper, config.parts, {}) for s in (stage, newer))
    assert first != second


def test_other_weights_of_a_part_move_the_stages_that_use_it(tmp_path):
    """A folder is known by what it holds, and the recipe's name for it stays the same."""
    (tmp_path / "config.json").write_text("{}")
    config = resolve("tiny", {"parts.vision.name": str(tmp_path)})
    before = prints(plan(dag("staged"), config))
    (tmp_path / "weights.bin").write_bytes(b"1")
    after = prints(plan(dag("staged"), config))
    moved = {name for name in before if before[name] != after[name]}
    assert moved == set(before) - {"download", "text_targets"}
