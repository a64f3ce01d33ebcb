"""Thresholds, calibration, intervals and agreement against scikit-learn or by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, precision_recall_curve

from gill.decision import GENERATE, RETRIEVE
from gill.evaluation.decisions import (
    apply_threshold,
    average_precision,
    best_threshold,
    bootstrap_macro_f1,
    calibration,
    decision_scores,
    human_agreement,
    majority_scores,
    threshold_sweep,
)


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    labels = (rng.random(80) < 0.3).astype(int)
    return labels.tolist(), np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).tolist()


def test_the_sweep_agrees_with_scikit_learn(case):
    labels, scores = case
    sweep = threshold_sweep(labels, scores)
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    assert [p.threshold for p in sweep[:-1]] == pytest.approx(thresholds.tolist())
    assert [p.precision for p in sweep] == pytest.approx(precision.tolist())
    assert [p.recall for p in sweep] == pytest.approx(recall.tolist())
    for point in sweep:
        said = apply_threshold(scores, point.threshold)
        assert point.macro_f1 == pytest.approx(
            f1_score(labels, said, average="macro", zero_division=0)
        )


def test_the_best_threshold_by_hand():
    # 0.4 and 0.9 both give F1 of 4/5 and 2/3; the lower is taken.
    assert best_threshold([0, 1, 0, 1], [0.1, 0.4, 0.5, 0.9]) == 0.4
    assert best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9]) == 0.7
    always = best_threshold([0, 0], [0.1, 0.2])
    assert apply_threshold([0.1, 0.2], always) == [0, 0]


def test_average_precision_by_hand():
    # Ranked: right, wrong, right. (1/1 + 2/3) / 2.
    assert average_precision([1, 0, 1], [0.9, 0.5, 0.2]) == pytest.approx(5 / 6)
    assert average_precision([0, 0], [0.9, 0.5]) == 0.0


def test_calibration_by_hand():
    # Two bins of the confidence: 0.6 twice, right once; 0.9 twice, right twice.
    found = calibration([1, 0, 1, 0], [0.6, 0.6, 0.9, 0.1], bins=2)
    assert found.bins == [
        (pytest.approx(0.6), pytest.approx(0.5), 2),
        (pytest.approx(0.9), pytest.approx(1.0), 2),
    ]
    assert found.error == pytest.approx((0.1 * 2 + 0.1 * 2) / 4)
    assert found.brier == pytest.approx((0.16 + 0.36 + 0.01 + 0.01) / 4)
    assert calibration([1], [1.0]).bins == [(1.0, 1.0, 1)]


def test_calibration_agrees_with_scikit_learn(case):
    labels, scores = case
    found = calibration(labels, scores)
    confidence = np.maximum(scores, 1 - np.asarray(scores))
    right = (np.asarray(scores) >= 0.5) == np.asarray(labels)
    accuracy, mean = calibration_curve(right, confidence, n_bins=20)  # of [0, 1]: ours are of half
    assert [b[0] for b in found.bins] == pytest.approx(mean.tolist())
    assert [b[1] for b in found.bins] == pytest.approx(accuracy.tolist())
    assert sum(b[2] for b in found.bins) == len(labels)


def test_labels_of_one_kind():
    found = threshold_sweep([0, 0], [0.1, 0.2])
    assert [(p.threshold, p.precision, p.recall) for p in found[:-1]] == [(0.1, 0, 0), (0.2, 0, 0)]
    assert (found[-1].precision, found[-1].recall, found[-1].macro_f1) == (1, 0, 0.5)
    assert calibration([0, 0], [0.1, 0.2]).brier == pytest.approx((0.01 + 0.04) / 2)
    intervals = bootstrap_macro_f1([0, 0], {"a": [0, 0], "b": [0, 1]}, samples=10)
    assert intervals["a"] == (0.5, 0.5)


def test_intervals_agree_with_a_plain_bootstrap(case):
    labels, scores = case
    said = apply_threshold(scores, 0.5)
    constant = [0] * len(labels)
    found = bootstrap_macro_f1(labels, {"model": said, "constant": constant}, samples=300, seed=1)
    rows = np.random.default_rng(1).integers(0, len(labels), (300, len(labels)))
    truth = np.asarray(labels)

    def score(sampled, predicted):
        return f1_score(
            truth[sampled], np.asarray(predicted)[sampled],
            labels=[0, 1], average="macro", zero_division=0,
        )  # fmt: skip

    model = [score(sampled, said) for sampled in rows]
    gap = [a - score(sampled, constant) for a, sampled in zip(model, rows, strict=True)]
    assert found["model"] == pytest.approx(np.percentile(model, [2.5, 97.5]).tolist())
    assert found["model - constant"] == pytest.approx(np.percentile(gap, [2.5, 97.5]).tolist())


def test_agreement_by_hand():
    votes = [
        ["gen", "gen", "gen", "gen", "ret"],  # a label: 4 of 5 answers right; 6 of 10 pairs equal
        ["ret", "ret", "ret", "ret", "ret"],  # a label: 5 of 5; 10 of 10
        ["gen", "gen", "ret", "ret", "same"],  # none; 2 of 10
    ]
    found = human_agreement(votes)
    generate = 2 * 1.0 * 0.8 / 1.8
    retrieve = 2 * (5 / 6) * 1.0 / (5 / 6 + 1)
    assert found["macro_f1"] == pytest.approx((generate + retrieve) / 2)
    assert found["pairwise"] == pytest.approx(18 / 30)
    assert human_agreement([]) == {"macro_f1": 0.0, "pairwise": 0.0}


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


def test_a_score_at_the_threshold_is_retrieved():
    assert apply_threshold([0.49, 0.5, 0.51], 0.5) == [GENERATE, RETRIEVE, RETRIEVE]
