"""Recipes and overrides: what is unknown is refused at once with the nearest valid names."""

import pytest

from flows.config import ConfigError
from flows.recipes import RECIPES, opt_6_7b, resolve, tiny
from tasks.registry import STAGES, ancestors, stage_named


def test_every_recipe_has_every_stage():
    for recipe in RECIPES.values():
        config = recipe()
        assert all(hasattr(config, name) for name in STAGES)


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
    assert ancestors("evaluate") == set(STAGES) - {"evaluate"}
    assert ancestors("index") == {"download", "clip_features", "adapters"}
