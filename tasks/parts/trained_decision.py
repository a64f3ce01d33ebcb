"""The trained decision model: written by its stage, read by all that use it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from data.artifacts import TrainedDecision
from data.io.atomic import write_json
from gill.decision import DecisionModel
from tasks.parts.weights import read_weights, with_weights, write_weights


def save_decision(out: Path, model: DecisionModel, llm_dim: int) -> None:
    """Write the weights and their width."""
    write_weights(out / TrainedDecision.WEIGHTS, model.state_dict())
    write_json(out / TrainedDecision.SPEC, {"llm_dim": llm_dim})


def load_decision(artifact: TrainedDecision) -> DecisionModel:
    """Read the decision model, frozen."""
    weights = read_weights(artifact, artifact.weights)
    return with_weights(partial(DecisionModel, **artifact.spec()), weights)
