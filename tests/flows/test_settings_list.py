"""The list of settings: types in words, what differs from a default, what has a word."""

import pytest

from flows.recipes import resolve
from flows.settings_list import REQUIRED, as_markdown, as_text, lines_of


@pytest.fixture(scope="module")
def lines():
    changed = {"mapper.learning_rate": 0.25, "mapper.baselines": ["mlp"]}
    return {line.key: line for line in lines_of(resolve("tiny", changed))}


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("mapper.learning_rate", "float"),
        ("mapper.schedule", "step | cosine | trapezoid"),
        ("mapper.betas", "list of float"),
        ("mapper.baselines", "list of gill | linear | mlp | encoder"),
        ("download.paths", "map of str to str"),
        ("download.limit", "int | none"),
    ],
)
def test_types_are_in_words(lines, key, kind):
    assert lines[key].kind == kind


def test_what_differs_is_told_from_the_component_and_not_from_the_recipe(lines):
    assert lines["mapper.learning_rate"].changed
    assert (lines["mapper.learning_rate"].value, lines["mapper.learning_rate"].default) == (
        0.25,
        1e-3,
    )
    assert lines["mapper.steps"].default == 20_000  # the stage's own, over the optimizer's
    assert not lines["mapper.heads"].matches("width")
    assert lines["mapper.hidden_dim"].matches("WIDTH")
    assert lines["parts.language.name"].default == REQUIRED


def test_text_has_value_unit_default_and_meaning(lines):
    text = as_text([lines["adapters.warmup_steps"], lines["mapper.betas"]]).splitlines()
    assert text[0] == "* adapters.warmup_steps = 2 steps (default 2000)"
    assert text[1].endswith("Default from: the reference run (docs/method.md).")
    assert text[2].startswith("  mapper.betas = (0.9, 0.95)")


def test_the_page_has_every_key_once(lines):
    page = as_markdown()
    for key in lines:
        assert page.count(f"| `{key}` |") == 1, key
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert len(headings) == len(set(headings))
