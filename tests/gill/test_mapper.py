"""Every mapper keeps the interface; GILLMapper equals its parts composed by hand."""

from typing import get_args

import pytest
import torch
from torch import nn

from gill.mapper import MapperKind, MapperSize, draw_from, new_mapper, whiten


@pytest.mark.parametrize("kind", get_args(MapperKind))
def test_shapes_and_gradients(kind):
    torch.manual_seed(0)
    size = MapperSize(kind, hidden_dim=16, layers=1, heads=2, feedforward_dim=32)
    mapper = new_mapper(llm_dim=12, num_img_tokens=3, num_targets=5, target_dim=7, size=size)
    out = mapper(torch.randn(4, 3, 12))
    assert out.shape == (4, 5, 7)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mapper.parameters())


def test_gill_mapper_is_fc_transformer_linear():
    torch.manual_seed(0)
    size = MapperSize("gill", hidden_dim=16, layers=2, heads=2, feedforward_dim=32)
    mapper = new_mapper(12, 3, 5, 7, size)
    x = torch.randn(2, 3, 12)
    for name, value in mapper.named_parameters():
        if name.endswith("bias"):  # fresh ones are zero, which would hide a forgotten bias
            nn.init.normal_(value)
    memory = mapper.tfm.encoder(mapper.fc(x))
    plain = mapper.model(mapper.tfm.decoder(mapper.query_embs.expand(2, -1, -1), memory))
    ours = mapper(x)
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
    with pytest.raises(ValueError, match=r"'conv'.*gill, linear, mlp, encoder"):
        new_mapper(8, 8, 4, 6, MapperSize("conv"))


def related(n=400):
    """Inputs far from zero with very different spreads, and targets that follow from them."""
    torch.manual_seed(3)
    hidden = torch.randn(n, 1, 6)
    spread = torch.logspace(-1, 1.5, 12)
    inputs = 5 + (hidden @ torch.randn(6, 12) + 0.1 * torch.randn(n, 3, 12)) * spread
    targets = torch.randn(5, 7) * 3 + hidden @ torch.randn(6, 7) + 0.1 * torch.randn(n, 5, 7)
    return inputs, targets


@pytest.mark.parametrize("kind", get_args(MapperKind))
@pytest.mark.parametrize("hidden", [4, 16])  # narrower and wider than the targets
def test_fitted_start_knows_the_mean_target_and_trains_faster(kind, hidden):
    inputs, targets = related()
    size = MapperSize(kind, hidden_dim=hidden, layers=2, heads=2, feedforward_dim=32)
    mean = (targets - targets.mean(0)).square().mean()
    losses = []
    for fitted in (False, True):
        torch.manual_seed(0)
        mapper = new_mapper(12, 3, 5, 7, size)
        if fitted:
            mapper.initialize_from(inputs[:300], targets[:300])
            begun = (mapper(inputs[300:]) - targets[300:]).square().mean()
            assert begun < 2 * mean
        optimizer = torch.optim.AdamW(mapper.parameters(), lr=3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            (mapper(inputs[:300]) - targets[:300]).norm(dim=-1).mean().backward()
            optimizer.step()
        losses.append(float((mapper(inputs[300:]) - targets[300:]).norm(dim=-1).mean().detach()))
    assert losses[1] < losses[0]


def test_gill_mapper_starts_as_a_regression():
    inputs, targets = related()
    torch.manual_seed(0)
    mapper = new_mapper(12, 3, 5, 7, MapperSize("gill", 16, 1, 2, 32))
    mapper.initialize_from(inputs[:300], targets[:300])
    mean = (targets - targets.mean(0)).square().mean()
    assert (mapper(inputs[300:]) - targets[300:]).square().mean() < 0.6 * mean


def test_whitened_components_and_back():
    torch.manual_seed(0)
    values = 5 + torch.randn(900, 12) @ (torch.randn(12, 12) * torch.logspace(-1, 1, 12))
    down, up = nn.Linear(12, 12), nn.Linear(12, 12)
    whiten(down, values)
    torch.testing.assert_close(down(values).mT.cov(correction=0), torch.eye(12), atol=1e-2, rtol=0)
    components = draw_from(up, values)
    torch.testing.assert_close(up(components(values)), values, atol=1e-3, rtol=1e-3)
    difference = values[1:] - values[:-1]
    torch.testing.assert_close(
        up(components(difference, centred=True)) - up.bias, difference, atol=1e-3, rtol=1e-3
    )
