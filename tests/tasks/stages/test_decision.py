"""The decision stage on both sources of labels."""

import json

import pytest
import torch
from PIL import Image

from gill.decision import RETRIEVE
from tasks.parts.trained_decision import load_decision
from tasks.training.decision_model import Examples, train_decision_model

HEADER = "Prompt\tCategory\tChallenge\tNote\tDecisions"


@pytest.fixture(scope="module")
def decided(tiny_run, tmp_path_factory):
    """The stage as the recipe has it."""
    return tiny_run.run("decision", tmp_path_factory.mktemp("decided"))


def test_the_gallery_shows_the_images_that_were_scored(decided):
    context, _ = decided
    table = context.log.tables["votes"]
    assert len(table["prompt"]) == 24
    assert all(isinstance(p, Image.Image) for p in [*table["retrieved"], *table["generated"]])
    assert len({p.tobytes() for p in table["generated"]}) == 24


def test_every_baseline_is_scored_with_an_interval(decided):
    context, metrics = decided
    for prefix in ("", "majority_", "always_generate_", "always_retrieve_", "score_threshold_",
                   "with_retrieval_score_"):  # fmt: skip
        score = metrics[f"{prefix}macro_f1"]
        assert metrics[f"{prefix}macro_f1_low"] <= score + 1e-9
        assert metrics[f"{prefix}macro_f1_high"] >= score - 1e-9
    assert metrics["sweep_best_macro_f1"] >= metrics["macro_f1"]
    found = json.loads((context.out / "decision_scores.json").read_text())
    assert {"macro_f1_95", "sweep", "calibration"} == set(found)
    assert set(context.log.figures) == {
        "confusion_matrix",
        "thresholds_and_calibration",
    }


@pytest.fixture
def votes(tmp_path):
    """A file of 60 prompts, 20 of each label and 20 without, and two malformed rows."""
    casts = ("gen,gen,gen,gen,same", "ret,ret,ret,same,gen", "gen,gen,ret,ret,same")
    rows = [f"prompt number {i}\tC\tC\t\t{casts[i % 3]}" for i in range(60)]
    rows += ["prompt number 3\tC\tC\t\tgen,gen,gen,gen,gen", "another\tC\tC\t\tyes"]
    path = tmp_path / "votes.tsv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_votes_of_people_replace_the_scorer(tiny_run, votes, tmp_path):
    context, metrics = tiny_run.run("decision", tmp_path, votes_file=str(votes), train_prompts=30)
    assert metrics["dropped"] == 2
    assert context.log.notes[0].startswith("votes.tsv, line 62: duplicate prompt: line 5")
    assert context.log.tables["malformed_votes"]["line"] == [62, 63]
    kinds = {k: metrics[f"prompts_{k}"] for k in ("generate", "retrieve", "same")}
    assert kinds == {"generate": 20, "retrieve": 20, "same": 20}
    # 30 of the 40 with a label train, the other ten are scored.
    scored = [v for k, v in metrics.items() if k.startswith("true_") and "_predicted_" in k]
    assert sum(scored) == 10
    # Of the votes with a label, 4 of 5 and 3 of 5 are right, and one "gen" is cast for "ret".
    precision, recall = 80 / 100, 80 / 100
    generate = 2 * precision * recall / (precision + recall)
    retrieve = 2 * 1.0 * 0.6 / 1.6
    assert metrics["annotator_macro_f1"] == pytest.approx((generate + retrieve) / 2)
    assert metrics["annotator_agreement"] == pytest.approx((6 + 3 + 2) / 30)
    assert not (tmp_path / "scores").exists()


def test_other_contents_of_the_file_are_another_configuration(tiny_run, votes):
    config = tiny_run.config.decision.model_copy(update={"votes_file": str(votes)})
    before = config.fingerprint_fields()
    moved = votes.rename(votes.with_name("moved.tsv"))
    same = config.model_copy(update={"votes_file": str(moved)})
    assert same.fingerprint_fields() == before
    moved.write_text(moved.read_text() + "new\tC\tC\t\tgen,gen,gen,gen,gen\n")
    assert same.fingerprint_fields() != before


@pytest.mark.parametrize("handling", ["as_is", "weight", "resample"])
def test_rare_classes_are_found_when_they_are_handled(decided, tmp_path, handling):
    """Overlapping classes of 5 and 95 per cent: without handling the rare one is never said."""
    torch.manual_seed(0)
    labels = (torch.rand(400) < 0.05).long()
    states = (torch.randn(400, 1, 4) + labels[:, None, None] * 0.5).float()
    context, _ = decided
    config = context.config.model_copy(
        update={"rare_classes": handling, "steps": 300, "batch_size": 64, "learning_rate": 0.01}
    )
    examples = Examples(list(range(400)), labels.tolist())
    model = train_decision_model(
        config, tmp_path, context.log, states, examples, examples, handling
    )
    said = model.probabilities(states).argmax(-1)
    share = float((said == RETRIEVE).float().mean())
    assert share < 0.02 if handling == "as_is" else share > 0.1


def test_the_kept_model_reads_the_img_state_alone(tiny_run):
    model = load_decision(tiny_run.artifacts["decision"])
    assert model.linear.weight.shape == (2, 32)
