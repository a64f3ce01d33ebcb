"""Recipes and overrides: what is unknown is refused at once with the nearest valid names."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from flows.config import PipelineConfig
from flows.names import RECIPE_NAMES
from flows.overrides import RENAMED_KEYS, RENAMED_VALUES, ConfigError
from flows.pipeline import dag
from flows.recipes import RECIPES, opt_6_7b, resolve, tiny
from flows.settings_list import as_markdown, lines_of
from tasks.runner.names import stage_names
from tasks.runner.registry import stage_named


def test_every_recipe_has_every_stage():
    for recipe in RECIPES.values():
        config = recipe()
        assert all(hasattr(config, name) for name in stage_names())


def test_no_recipe_leaves_pairs_out():
    assert not any(recipe().clip_features.filters for recipe in RECIPES.values())


def test_the_paper_recipe_says_each_form_in_which_paper_and_released_code_differ():
    """As `docs/reference/differences.md` lists them; no default decides for it."""
    config = opt_6_7b()
    page = (Path(__file__).parents[2] / "docs" / "reference" / "differences.md").read_text()
    named = set(re.findall(r"`(?:(\w+)\.)?(\w+)(?:=[^`]*)?` *(?:\||,)", page))
    keys = {(stage, key) for stage, key in named if key in _keys(config, stage)}
    assert len(keys) >= 12
    for stage, key in keys:
        part = getattr(config, stage) if stage else config
        assert key in part.model_fields_set, f"opt-6.7b leaves {stage}.{key} to its default"


def _keys(config, stage):
    part = getattr(config, stage, None) if stage else config
    return getattr(type(part), "model_fields", {})


def test_overrides_change_one_key():
    config = resolve("tiny", {"mapper.learning_rate": 0.5, "parts.generator.steps": 3})
    assert config.mapper.learning_rate == 0.5
    assert config.parts.generator.steps == 3
    assert config.adapters == tiny().adapters


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("embeded", {}, r"'embeded'; did you mean 'embedded'"),
        ("tiny", {"mapper.learning_rat": 1}, r"did you mean 'mapper\.learning_rate'"),
        ("tiny", {"maper.kind": "mlp"}, r"did you mean 'mapper\.kind'"),
        ("tiny", {"mapper.learning_rate": "fast"}, r"mapper\.learning_rate.*'fast'"),
        ("tiny", {"mapper.learning_rate": -1}, r"mapper\.learning_rate.*greater than 0"),
        ("tiny", {"mapper.kind": "conv"}, r"mapper\.kind.*'conv'"),
    ],
)
def test_what_does_not_exist_is_refused(recipe, overrides, message):
    with pytest.raises(ConfigError, match=message):
        resolve(recipe, overrides)


def test_unknown_stage_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'mapper'"):
        stage_named("maper")


def test_the_reference_recipe_has_the_reference_values():
    config = opt_6_7b()
    assert config.adapters.num_img_tokens == 8
    assert config.adapters.num_visual_tokens == 4
    assert config.adapters.retrieval_dim == 256
    assert config.adapters.batch_size == 200
    assert config.adapters.steps == 20_000
    assert config.adapters.betas == (0.9, 0.95)
    assert config.adapters.refine_steps == 0
    assert config.mapper.hidden_dim == 512
    assert config.mapper.layers == 4
    assert config.parts.generator.guidance_scale == 7.5


def test_ancestors_of_the_last_stage_are_all_others():
    stages = dag("staged")
    assert stages.ancestors("evaluate") == set(stages.stages) - {"evaluate"}
    assert stages.ancestors("index") == {"download", "clip_features", "adapters"}


def test_one_stage_gives_adapters_and_mapper_in_the_other_schedules():
    joint, both = dag("joint"), {"adapters", "mapper"}
    assert set(stage_names()) - set(joint.stages) == {*both, "imported"}
    assert set(stage_names()) - set(dag("imported").stages) == {*both, "joint"}
    assert set(stage_names()) - set(dag("staged").stages) == {"joint", "imported"}
    assert joint.ancestors("index") == {"download", "clip_features", "text_targets", "joint"}
    changed = {"schedule": "joint", "adapters.num_img_tokens": 3, "mapper.layers": 2}
    config = resolve("tiny", {**changed, "generation_weight": 0.5})
    assert (config.joint.num_img_tokens, config.joint.layers) == (3, 2)
    assert config.joint.generation_weight == 0.5
    assert config.joint.steps == config.adapters.steps


def test_settings_of_validation_bear_on_a_result_only_where_it_chooses():
    plain, chosen = tiny().mapper, resolve("tiny", {"mapper.keep_best": True}).mapper
    assert "validate_every" not in plain.fingerprint_fields()
    assert chosen.fingerprint_fields()["validate_every"] == plain.validate_every


def test_captions_must_fit_beside_the_img_tokens():
    with pytest.raises(ConfigError, match=r"max_tokens 32 leaves no room.*40 \[IMG\]"):
        resolve("tiny", {"adapters.num_img_tokens": 40})


def test_the_recipes_are_those_that_the_command_offers():
    assert set(RECIPES) == set(RECIPE_NAMES)


@pytest.mark.parametrize("old", RENAMED_KEYS)
def test_an_old_key_is_refused_with_its_new_name(old):
    new = RENAMED_KEYS[old]
    assert new in [line.key for line in lines_of(tiny())]
    with pytest.raises(ConfigError, match=f"'{old}' is called '{new}' now"):
        resolve("tiny", {old: 1})


@pytest.mark.parametrize(("key", "old"), RENAMED_VALUES)
def test_an_old_value_is_refused_with_its_new_name(key, old):
    new = RENAMED_VALUES[key, old]
    listed = key == "evaluate.suites"
    with pytest.raises(ConfigError, match=f"'{old}' of '{key}' is called '{new}' now"):
        resolve("tiny", {key: [old] if listed else old})
    resolve("tiny", {key: [new] if listed else new})


def models(model):
    """A configuration and all that it holds, by class."""
    found = {type(model)}
    for name in type(model).model_fields:
        if isinstance(value := getattr(model, name), BaseModel):
            found |= models(value)
    return found


def test_every_setting_says_what_it_means():
    for line in lines_of(opt_6_7b()):
        assert len(line.description.split()) > 0, line.key
    assert len(lines_of(opt_6_7b())) > 180


def test_every_setting_says_its_unit_and_where_its_default_comes_from():
    bare = ("seed", "learning_rate", "weight_decay", "betas")  # numbers without a unit
    for line in lines_of(opt_6_7b()):
        assert line.source, line.key
        if line.kind in ("int", "float", "int | none"):
            assert bool(line.unit) != line.key.endswith(bare), line.key


def test_every_setting_is_declared_once():
    """A class may give an inherited setting another default, and nothing else."""
    for model in models(opt_6_7b()) - {PipelineConfig}:
        for name, field in model.model_fields.items():
            owners = [
                base for base in model.__mro__ if name in vars(base).get("__annotations__", {})
            ]
            described = {owner.model_fields[name].description for owner in owners}
            assert described == {field.description}, f"{model.__name__}.{name} in {owners}"
            kinds = {str(owner.model_fields[name].annotation) for owner in owners}
            assert len(kinds) == 1, f"{model.__name__}.{name} in {owners}"


def test_another_default_keeps_the_rest_of_the_declaration():
    from gill.training import Optimization

    own, inherited = type(tiny().mapper).model_fields["steps"], Optimization.model_fields["steps"]
    assert (own.default, own.metadata) == (20_000, inherited.metadata)
    with pytest.raises(ConfigError, match=r"decision\.steps.*greater than or equal to 1"):
        resolve("tiny", {"decision.steps": 0})


def test_the_reference_page_is_current():
    page = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"
    assert page.read_text() == as_markdown(), f"run: gill config --markdown > {page}"
