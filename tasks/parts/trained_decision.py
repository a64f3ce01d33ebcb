"""The trained decision model: written by its stage, read by all that use it."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from data.artifacts import TrainedDecision
from data.io.atomic import write_json
from gill.decision import DecisionModel


def save_decision(out: Path, model: DecisionModel, llm_dim: int) -> None:
    """Write the weights and their width."""
    save_file(model.state_dict(), out / TrainedDecision.WEIGHTS)
    write_json(out / TrainedDecision.SPEC, {"llm_dim": llm_dim})


def load_decision(artifact: TrainedDecision) -> DecisionModel:
    """Read the decision model, frozen."""
    model = DecisionModel(**artifact.spec())
    model.load_state_dict(load_file(artifact.weights))
    return model.requires_grad_(False).eval()
