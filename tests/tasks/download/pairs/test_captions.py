"""Captions are counted by words, scripts and hosts."""

import numpy as np
import pytest

from tasks.download.pairs.captions import CaptionCounts, histogram, script_of, spread


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("a cat", "LATIN"), ("café au lait", "LATIN"), ("красный кот", "CYRILLIC"),
        ("猫です", "HIRAGANA"), ("一只红色的猫", "CJK"), ("12 + 3", "none"), ("", "none"),
        ("a кот и пёс", "CYRILLIC"),
    ],
)  # fmt: skip
def test_a_caption_is_of_the_script_of_most_of_its_letters(text, script):
    assert script_of(text) == script


def test_counts_of_a_split():
    counts = CaptionCounts()
    counts.add(["a red cat", "кот"], ["http://a.org/1.jpg", "x.tar: 1"])
    counts.add(["one"], ["https://a.org:80/2"])
    found = counts.described()
    assert counts.words == [3, 1, 1]
    assert found["scripts"] == {"LATIN": 2, "CYRILLIC": 1}
    assert found["hosts"] == {"a.org": 2}
    assert found["words"]["p50"] == 1
    assert spread(np.arange(101))["p95"] == 95
    assert spread(np.empty(0)) == {}


def test_a_histogram_counts_every_value_once():
    values = np.array([-0.12, -0.05, -0.01, -0.0, 0.02, 0.26, 0.29, 0.9])
    assert histogram(values, 0.05) == {
        "-0.15": 1, "-0.05": 2, "0.00": 2, "0.25": 2, "0.90": 1,
    }  # fmt: skip
    assert histogram(np.empty(0), 0.05) == {}
