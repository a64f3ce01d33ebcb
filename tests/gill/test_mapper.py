"""Every mapper keeps the interface; GILLMapper equals its parts composed by hand."""

from typing import get_args

import pytest
import torch
from torch import nn

from gill.mapper import MapperKind, MapperSize, new_mapper


@pytest.mark.parametrize("kind", get_args(MapperKind))
def test_shapes_and_gradients(kind):
    torch.manual_seed(0)
    size = MapperSize(kind=kind, hidden_dim=16, layers=1, heads=2, feedforward_dim=32)
    mapper = new_mapper(llm_dim=12, num_img_tokens=3, num_targets=5, target_dim=7, size=size)
    out = mapper(torch.randn(4, 3, 12), torch.randn(3, 12))
    assert out.shape == (4, 5, 7)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mapper.parameters())


def test_gill_mapper_is_fc_transformer_linear():
    torch.manual_seed(0)
    size = MapperSize(kind="gill", hidden_dim=16, layers=2, heads=2, feedforward_dim=32)
    mapper = new_mapper(12, 3, 5, 7, size)
    x = torch.randn(2, 3, 12)
    for name, value in mapper.named_parameters():
        if name.endswith("bias"):  # fresh ones are zero, which would hide a forgotten bias
            nn.init.normal_(value)
    memory = mapper.tfm.encoder(mapper.fc(x))
    plain = mapper.model(mapper.tfm.decoder(mapper.query_embs.expand(2, -1, -1), memory))
    ours = mapper.transform(x)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    target = torch.randn_like(plain)
    gradients = [
        torch.autograd.grad((out - target).square().mean(), list(mapper.parameters()))
        for out in (ours, plain)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_reference_sizes_have_the_reference_parameter_names():
    names = set(dict(new_mapper(8, 8, 4, 6, MapperSize(layers=1)).named_parameters()))
    assert {"fc.weight", "query_embs", "model.weight"} <= names
    assert "tfm.encoder.layers.0.self_attn.in_proj_weight" in names


def test_unknown_kind_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'gill', 'linear', 'mlp' or 'encoder'.*'conv'"):
        MapperSize(kind="conv")


@pytest.mark.parametrize("kind", get_args(MapperKind))
def test_every_mapper_reads_states_plus_embeddings(kind):
    torch.manual_seed(0)
    size = MapperSize(kind=kind, hidden_dim=16, layers=1, heads=2, feedforward_dim=32)
    mapper = new_mapper(12, 3, 5, 7, size).eval()
    states, embeddings = torch.randn(4, 3, 12), torch.randn(3, 12)
    assert torch.equal(mapper(states, embeddings), mapper.transform(states + embeddings))
    halves = states.half()  # stored states are in half precision; the sum is not
    assert torch.equal(mapper(halves, embeddings), mapper.transform(halves.float() + embeddings))
