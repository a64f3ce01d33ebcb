"""Weights are written whole, read whole, and loading them draws no random numbers."""

from functools import partial

import pytest
import torch

from data.artifacts import Artifact
from data.manifest import DamagedArtifactError
from gill.decision import DecisionModel
from gill.mapper import MapperSize, new_mapper
from gill.retrieval import RetrievalMaps
from tasks.parts.weights import read_weights, with_weights, write_weights

MAKERS = {
    "maps": partial(RetrievalMaps, 6, 4, 3),
    "decision": partial(DecisionModel, 6),
    **{
        kind: partial(
            new_mapper, 6, 2, 5, 4,
            MapperSize(kind=kind, hidden_dim=8, layers=1, heads=2, feedforward_dim=8),
        )
        for kind in ("gill", "linear")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_loaded_weights_are_those_written_and_nothing_is_drawn(tmp_path, name):
    made = MAKERS[name]()
    write_weights(tmp_path / "w.safetensors", made.state_dict())
    before = torch.get_rng_state()
    weights = read_weights(Artifact("probe", "f00", tmp_path), tmp_path / "w.safetensors")
    read = with_weights(MAKERS[name], weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert not read.training
    assert not any(p.requires_grad for p in read.parameters())
    for key, value in made.state_dict().items():
        assert torch.equal(read.state_dict()[key], value), key


@pytest.mark.parametrize("data", [None, b"", b"\xff" * 40])
def test_what_cannot_be_read_is_named(tmp_path, data):
    if data is not None:
        (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(DamagedArtifactError, match=r"w.safetensors: cannot be .*gill run"):
        read_weights(Artifact("probe", "f00", tmp_path), tmp_path / "w.safetensors")
