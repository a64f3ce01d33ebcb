"""The trained adapters: written by the stages that train them, read by all that use them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from data.artifacts import TrainedAdapters
from data.io.atomic import write_json
from gill.backbones.language import LanguageModel
from gill.model import Adapters
from gill.specs import AdapterSpec
from tasks.parts.weights import read_weights, write_weights


def save_adapters(out: Path, adapters: Adapters) -> None:
    """Write the weights and their spec."""
    write_weights(out / TrainedAdapters.ADAPTERS_WEIGHTS, adapters.state_dict())
    write_json(out / TrainedAdapters.ADAPTERS_SPEC, adapters.spec.model_dump())


def load_adapters(artifact: TrainedAdapters, language: LanguageModel) -> Adapters:
    """Read the adapters, frozen, onto the language model's device."""
    adapters = Adapters(AdapterSpec(**artifact.adapters_spec()), language)
    adapters.load_state_dict(read_weights(artifact, artifact.adapters_weights))
    return adapters.to(language.device).requires_grad_(False).eval()


def load_img_embeddings(artifact: TrainedAdapters) -> Tensor:
    """E_img ``(r, llm_dim)``, without loading a language model."""
    return read_weights(artifact, artifact.adapters_weights)["img_tokens.weight"].float()
