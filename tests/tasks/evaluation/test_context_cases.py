"""Which stories and dialogues a recipe's suites have, and what is said where there are none."""

import pytest
from small_store import SmallStore
from trained_tiny import RecordingLog

from data.benchmarks.contexts import ContextError
from tasks.config.evaluation import ContextsConfig, EvaluateConfig
from tasks.evaluation.context_cases import described_images, read_cases

STYLED = [f"thing {i}, red, clip art of fruit" for i in range(5)]


@pytest.fixture
def images(tmp_path):
    """Of a test split with six described images, one with no style and one story's worth."""
    captions = [*STYLED, "pear, green, emoji of fruit", "a photograph of a dog"]
    return SmallStore(tmp_path, {"train": ["x", "y"], "test": captions}).images


def cases(images, log=None, cases=9, **changes):
    config = EvaluateConfig(contexts=ContextsConfig(cases=cases), **changes)
    return read_cases(config, images, log or RecordingLog())


def test_captions_of_the_test_split_are_taken_apart(images):
    known, skipped = described_images(images)
    assert [item.image.name for item in known] == [f"test/{i}" for i in range(6)]
    assert (known[5].title, known[5].style, known[5].theme) == ("pear", "emoji", "fruit")
    assert skipped == {"no style": 1}


def test_synthetic_contexts_count_what_is_left_out(images):
    log = RecordingLog()
    found = cases(images, log, suites=("synthetic_contexts",))
    assert list(found) == ["synthetic_story", "synthetic_dialogue"]
    assert {case.key for case in found["synthetic_story"].cases} == {f"test/{i}" for i in range(5)}
    few = "fewer than five images of its style"
    assert found["synthetic_story"].skipped == {few: 1, "no style": 1}
    assert len(found["synthetic_dialogue"].cases) == 6
    assert log.notes == [
        f"synthetic_story: 5 cases, skipped {{'{few}': 1, 'no style': 1}}",
        "synthetic_dialogue: 6 cases, skipped {'no style': 1}",
    ]


def test_a_recipe_without_contexts_has_none(images):
    assert cases(images, suites=("captioning", "retrieval")) == {}


def test_at_most_so_many(images):
    found = cases(images, suites=("synthetic_contexts",), cases=2)
    assert [len(made.cases) for made in found.values()] == [2, 2]


def test_no_usable_case_says_why(tmp_path):
    images = SmallStore(tmp_path, {"test": ["a dog", "a cat"]}).images
    with pytest.raises(
        ContextError, match=r"synthetic_story has no usable case \(\{'no style': 2\}"
    ):
        cases(images, suites=("synthetic_contexts",))
