"""Every metric against an independent computation on a small case."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg

from gill.evaluation.captioning import (
    caption_frequency_baseline,
    caption_scores,
    word_frequency_baseline,
    words,
)
from gill.evaluation.decisions import decision_scores, majority_scores
from gill.evaluation.images import frechet_distance, paired_similarity
from gill.evaluation.retrieval import ranks, recall


def test_ranks_by_hand():
    text = torch.eye(3)
    image = torch.tensor([[0.9, 0.0, 0.1], [1.0, 0.2, 0.0], [0.0, 0.5, 0.8]])
    # Query 0 scores (0.9, 1.0, 0.0): one better. Query 1 (0, 0.2, 0.5): one. Query 2: none.
    assert ranks(text, image).tolist() == [1, 1, 0]
    found = recall(text, image, at=(1, 2))
    assert found["t2i_r1"] == pytest.approx(1 / 3)
    assert found["t2i_r2"] == pytest.approx(1.0)


def test_equal_vectors_are_no_success():
    same = torch.ones(4, 2)
    assert ranks(same, same).tolist() == [3, 3, 3, 3]


def test_ranks_do_not_depend_on_the_chunk():
    torch.manual_seed(0)
    a, b = torch.randn(50, 8), torch.randn(50, 8)
    assert torch.equal(ranks(a, b), ranks(a, b, chunk=7))


def test_frechet_distance_of_known_gaussians():
    rng = np.random.default_rng(0)
    a = torch.from_numpy(rng.normal(0, 1, (200_000, 2)))
    b = torch.from_numpy(rng.normal([3.0, 4.0], 2, (200_000, 2)))
    # |mu|^2 = 25 and, for each dimension, (1 - 2)^2 = 1.
    assert frechet_distance(a, b) == pytest.approx(27.0, rel=0.01)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("count", [40, 12])  # the second has fewer samples than dimensions
def test_frechet_distance_is_the_formula(count):
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (count, 16)), rng.normal(0.2, 1.5, (50, 16))
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = a.mean(0) - b.mean(0)
    wanted = shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root)
    found = frechet_distance(torch.from_numpy(a), torch.from_numpy(b))
    assert found == pytest.approx(wanted, rel=1e-6)


def test_paired_similarity():
    a = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert paired_similarity(a, torch.tensor([[0.0, 1.0], [0.6, 0.8]])).tolist() == [0.0, 1.0]


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


def test_macro_f1_by_hand():
    labels, predicted = [0, 0, 0, 1, 1], [0, 0, 1, 1, 0]
    scores = decision_scores(labels, predicted)
    # Class 0: precision 2/3, recall 2/3. Class 1: 1/2 and 1/2.
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["accuracy"] == pytest.approx(0.6)
    assert scores["true_generate_predicted_retrieve"] == 1
    majority = majority_scores([0, 0, 1], labels)
    assert majority["macro_f1"] == pytest.approx(0.75 / 2)
    with pytest.raises(ValueError, match="no labelled prompts"):
        decision_scores([], [])
