"""Votes of the scorer and of people, by hand and through an engine of micro parts."""

import pytest
import torch
from trained_tiny import RecordingLog

from gill.decision import GENERATE, RETRIEVE
from tasks.config.decision import DecisionConfig
from tasks.evaluation.decision_labels import (
    annotators_labels,
    label_name,
    median_gap,
    scorers_labels,
    votes_of,
)
from tasks.evaluation.held_out import read_captions


def row(retrieved, *generated):
    return {"retrieved_score": retrieved, "generated_scores": list(generated)}


def test_the_usual_gap_is_the_median_over_prompts_by_hand():
    rows = [row(0.5, 0.1, 0.3), row(0.2, 0.3, 0.3), row(0.0, 0.9, 0.9)]  # -0.3, 0.1, 0.9
    assert median_gap(rows) == pytest.approx(0.1)
    assert median_gap(rows[:2]) == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("gap", "margin", "votes"),
    [
        (0.0, 0.05, ["gen", "same", "same", "ret"]),
        (0.0, 0.0, ["gen", "gen", "ret", "ret"]),
        (0.1, 0.05, ["same", "ret", "ret", "ret"]),  # the retrieved image is raised by the gap
        (-0.2, 0.05, ["gen", "gen", "gen", "same"]),
    ],
)
def test_votes_by_hand(gap, margin, votes):
    assert votes_of(row(0.5, 0.6, 0.54, 0.46, 0.32), gap, margin) == votes


def test_labels_have_names():
    assert label_name(["gen"] * 5) == "generate"
    assert label_name(["ret"] * 4 + ["gen"]) == "retrieve"
    assert label_name(["gen", "gen", "ret", "ret", "same"]) == "left out"


def test_the_gap_comes_from_the_prompts_that_train(small, engine, stored, tmp_path):
    """It would know of the held-out prompts otherwise."""
    prompts = read_captions(small.images, small.adapters, "train")
    config = DecisionConfig(votes=3, train_prompts=5, validation_prompts=4, balance=True)
    found = scorers_labels(config, engine, stored, prompts, tmp_path, RecordingLog())
    assert (len(found.prompts), found.training) == (9, 5)
    assert found.states.shape[0] == len(found.votes) == len(found.nearest) == 9
    assert {len(votes) for votes in found.votes} == {3}
    again = scorers_labels(
        config.model_copy(update={"validation_prompts": 2}),
        engine, stored, prompts, tmp_path / "fewer", RecordingLog(),
    )  # fmt: skip
    assert again.usual_gap == pytest.approx(found.usual_gap)
    assert found.usual_gap != 0.0
    config = config.model_copy(update={"balance": False})
    plain = scorers_labels(config, engine, stored, prompts, tmp_path, RecordingLog())
    assert plain.usual_gap == 0.0


def test_with_few_prompts_one_is_left_to_be_scored(small, engine, stored, tmp_path):
    prompts = read_captions(small.images, small.adapters, "test")
    config = DecisionConfig(votes=3, train_prompts=600)
    found = scorers_labels(config, engine, stored, prompts, tmp_path, RecordingLog())
    assert (len(found.prompts), found.training) == (6, 5)


HEADER = "Prompt\tCategory\tChallenge\tNote\tDecisions"
CASTS = {"gen,gen,gen,gen,same": GENERATE, "ret,ret,ret,same,gen": RETRIEVE,
         "gen,gen,ret,ret,same": None}  # fmt: skip


@pytest.fixture
def votes(tmp_path):
    """Nine prompts, three of each label and three without, sorted by category, and a bad row."""
    rows = [f"prompt {c} {i}\tC{c}\tx\t\t{cast}" for c, cast in enumerate(CASTS) for i in range(3)]
    path = tmp_path / "votes.tsv"
    path.write_text("\n".join([HEADER, *rows, "bad\tC\tx\t\tyes"]) + "\n")
    return path


def test_votes_of_people_put_what_has_a_label_first(engine, votes):
    log = RecordingLog()
    config = DecisionConfig(train_prompts=4)
    found = annotators_labels(config, engine, votes, log)
    labels = found.labels()
    assert None not in labels[:6]
    assert labels[6:] == [None] * 3
    assert {GENERATE, RETRIEVE} <= set(labels[:6])
    assert labels[:6] != [GENERATE] * 3 + [RETRIEVE] * 3  # the file's order by category is mixed
    assert (found.training, found.dropped, found.usual_gap) == (4, {"unknown vote": 1}, 0.0)
    assert log.notes == ["votes.tsv, line 11: unknown vote: ['yes']; votes are gen, ret, same"]
    assert log.tables["malformed_votes"]["line"] == [11]
    # The states are those of the prompts, row by row.
    alone = engine.img_states([found.prompts[4]])
    torch.testing.assert_close(found.states[4], alone[0], atol=1e-5, rtol=1e-5)
    best = engine.retrieve(alone)[0][0].score
    assert float(found.nearest[4]) == pytest.approx(best, abs=1e-5)
    other = annotators_labels(config.model_copy(update={"seed": 1}), engine, votes, log)
    assert sorted(other.prompts) == sorted(found.prompts)
    assert other.prompts != found.prompts


def test_one_labelled_prompt_at_least_is_not_trained_on(engine, votes):
    config = DecisionConfig(train_prompts=600)
    assert annotators_labels(config, engine, votes, RecordingLog()).training == 5
