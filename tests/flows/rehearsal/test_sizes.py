"""What a rehearsal replaces of its recipe, and what it says is cut."""

from pathlib import Path

import pytest

from flows.overrides import ConfigError
from flows.recipes import resolve
from flows.rehearsal.sizes import REHEARSALS, changed, rehearsal_of

FOLDER = Path("/somewhere")
OPT = REHEARSALS["opt-6.7b"]


def test_only_parts_data_and_amounts_are_replaced():
    config, recipe = resolve("opt-6.7b", OPT.overrides(FOLDER)), resolve("opt-6.7b", {})
    own = {key: value for key, value in _flat(config).items() if _flat(recipe)[key] != value}
    assert set(own) <= {
        "parts.language.name", "parts.vision.name", "parts.vision.pretrained",
        "parts.generator.name", "parts.generator.steps", "download.paths",
        "adapters.steps", "mapper.steps", "decision.steps",
        "decision.train_prompts", "decision.validation_prompts", "decision.votes",
        "decision.margin",
        "evaluate.images", "evaluate.captions", "evaluate.decision_prompts",
    }  # fmt: skip
    assert config.adapters.num_img_tokens == 8
    assert config.adapters.batch_size == config.mapper.batch_size == OPT.pairs.train == 200
    assert config.text_targets.form == "int8"


def _flat(config):
    found = {}
    for key in config.keys():  # noqa: SIM118 it is no mapping
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        found[key] = value
    return found


def test_what_is_cut_is_said():
    assert OPT.cut() == [
        "2 of 32 layers of the language model",
        "2 of 24 layers of the vision tower",
        "128 of 512 pixels of a sampled image",
    ]
    assert changed(OPT, None, None, True, 50).cut() == []


def test_depth_and_steps_can_be_chosen():
    deeper = changed(OPT, 7, 30, False, 50)
    assert (deeper.steps, deeper.sampler_steps) == (7, OPT.sampler_steps)
    assert (deeper.parts.language.layers, deeper.parts.vision.layers) == (30, 24)
    full = changed(OPT, 9, None, True, 50)
    assert (full.steps, full.sampler_steps, full.parts) == (9, 50, OPT.published)
    assert full.pairs.train == 2000
    assert full.pairs.test >= full.images


@pytest.mark.parametrize("recipe", ["tiny", "embedded"])
def test_recipes_of_small_parts_are_run_as_they_are(recipe):
    with pytest.raises(ConfigError, match=rf"gill run --recipe {recipe}.*takes opt-6\.7b"):
        rehearsal_of(recipe)
