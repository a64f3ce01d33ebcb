"""Which stories and dialogues a recipe's suites have, and what is said where there are none."""

import json

import pytest
from PIL import Image
from trained_tiny import RecordingLog

from data.benchmarks.contexts import ContextError
from tasks.config.evaluation import ContextsConfig, EvaluateConfig
from tasks.evaluation.context_cases import read_cases


def cases(log=None, cases=9, files=None, **changes):
    contexts = ContextsConfig(cases=cases, **(files or {}))
    return read_cases(EvaluateConfig(contexts=contexts, **changes), log or RecordingLog())


def test_the_grammar_gives_told_and_shown_stories_and_dialogues():
    log = RecordingLog()
    found = cases(log, suites=("synthetic_contexts",))
    assert {name: len(made.cases) for name, made in found.items()} == {
        "told_story": 9,
        "shown_story": 9,
        "told_dialogue": 9,
    }
    assert log.notes == [f"{name}: 9 cases, skipped none" for name in found]
    longest = {name: list(made.cases[0].contexts)[-1] for name, made in found.items()}
    assert longest == {
        "told_story": "5 captions, 4 images",
        "shown_story": "5 captions, 4 images",
        "told_dialogue": "10 rounds",
    }


def test_a_recipe_without_contexts_has_none():
    assert cases(suites=("captioning", "retrieval")) == {}


def test_at_most_so_many():
    found = cases(suites=("synthetic_contexts",), cases=2)
    assert [len(made.cases) for made in found.values()] == [2, 2, 2]


def test_no_usable_case_says_why(tmp_path):
    """A story of five sentences whose images are nowhere."""
    rows = [
        [{"story_id": "1", "photo_flickr_id": str(i), "worker_arranged_photo_order": i,
          "original_text": "A day out.", "text": "a day out ."}]
        for i in range(5)
    ]  # fmt: skip
    (tmp_path / "stories.json").write_text(json.dumps({"annotations": rows}))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "another.png")
    files = {
        "vist_stories": str(tmp_path / "stories.json"),
        "vist_images": str(tmp_path / "images"),
    }
    with pytest.raises(ContextError, match=r"vist has no usable case \(\{'.*': 1\}"):
        cases(suites=("vist",), files=files)
