"""Scores of captions by hand, and the baselines that ignore the image."""

import math

import pytest

from gill.evaluation.captioning import (
    caption_frequency_baseline,
    caption_scores,
    meteor_exact,
    word_frequency_baseline,
    words,
)


def test_caption_scores_by_hand():
    references = ["a red apple on a table", "two dogs run in the park", "a boat on blue water"]
    perfect = caption_scores(references, references)
    assert perfect["bleu_4"] == pytest.approx(1.0, abs=1e-6)
    assert perfect["cider"] == pytest.approx(10.0)
    # Four of five words of one caption, brevity penalty exp(1 - 6/5).
    one = caption_scores(["a red apple on chair"], ["a red apple on a table"])
    assert one["bleu_1"] == pytest.approx(0.8 * math.exp(1 - 6 / 5), rel=1e-6)
    assert caption_scores(["x y"] * 3, references)["cider"] == pytest.approx(0.0, abs=1e-6)


def test_scores_need_a_caption_for_each_reference():
    with pytest.raises(ValueError, match="1 captions for 2"):
        caption_scores(["a"], ["a", "b"])


def test_frequency_baselines():
    assert caption_frequency_baseline(["b", "a", "a"], 2) == ["a", "a"]
    made = word_frequency_baseline(["Clip art, of a cat", "clip art of a dog"], 2)
    assert made[0] == made[1]
    assert set(made[0].split()) >= {"clip", "art", "of", "a"}
    assert len(made[0].split()) == 5
    assert words("It's 3D, café!") == "it s 3d café"


def test_meteor_by_hand():
    # 6 of 7 and 6 of 6 words in two chunks: 10 P R / (R + 9 P) less half of (2 / 6)^3.
    precision = 6 / 7
    mean = 10 * precision / (1 + 9 * precision)
    found = meteor_exact("the cat was sat on the mat", "the cat sat on the mat")
    assert found == pytest.approx(mean * (1 - 0.5 * (2 / 6) ** 3))
    # "on the mat", "the cat" and "sat": three chunks of six matches.
    found = meteor_exact("on the mat sat the cat", "the cat sat on the mat")
    assert found == pytest.approx(1 - 0.5 * (3 / 6) ** 3)
    assert meteor_exact("dog", "cat") == meteor_exact("", "cat") == 0.0
    both = caption_scores(["dog", "a cat"], ["cat", "a cat"])["meteor_exact"]
    assert both == pytest.approx((1 - 0.5 / 8) / 2)
