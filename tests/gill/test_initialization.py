"""Data-dependent starts: what they compute, and that training from them goes faster."""

from typing import get_args

import pytest
import torch
from torch import nn

from gill.captioning import CaptioningMap
from gill.initialization import (
    SMALL,
    ridge,
    start_captioning,
    start_mapper,
    unwhiten,
    whiten,
    words_of_images,
)
from gill.mapper import Mapper, MapperKind, MapperSize, new_mapper

NOTHING = torch.zeros(3, 12)  # [IMG] embeddings that add nothing to the states


def test_ridge_is_least_squares_with_a_penalty():
    torch.manual_seed(0)
    x = torch.randn(50, 4, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5, 3.0]) + 1
    y = torch.randn(50, 3, dtype=torch.float64)
    weight, bias = ridge(x, y, penalty=0.7)
    centred = x - x.mean(0)
    strength = 0.7 * centred.square().sum(0).mean()
    # The same as ordinary least squares with rows that pull each weight to zero.
    rows = torch.cat([centred, strength.sqrt() * torch.eye(4, dtype=torch.float64)])
    wanted = torch.cat([y - y.mean(0), torch.zeros(4, 3, dtype=torch.float64)])
    expected = torch.linalg.lstsq(rows, wanted).solution
    torch.testing.assert_close(weight.T, expected)
    torch.testing.assert_close(x.mean(0) @ weight.T + bias, y.mean(0))


def test_without_penalty_a_linear_map_is_found():
    torch.manual_seed(1)
    x, true = torch.randn(30, 4), torch.randn(3, 4)
    weight, bias = ridge(x, x @ true.T + 2, penalty=0.0)
    torch.testing.assert_close(weight, true, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bias, torch.full((3,), 2.0), atol=1e-4, rtol=1e-4)


def test_visual_tokens_start_as_a_text_that_images_change_a_little():
    maps = CaptioningMap(5, 4, 3)
    weight = maps.linear.weight.detach().clone()
    rows = torch.randn(2, 3)
    start_captioning(maps, rows)
    torch.testing.assert_close(maps(torch.zeros(1, 5))[0], rows[[0, 1, 1, 1]])
    torch.testing.assert_close(maps.linear.weight.detach(), SMALL * weight)
    start_captioning(maps, torch.randn(6, 3))  # what is too long is cut
    assert maps(torch.zeros(2, 5)).shape == (2, 4, 3)


def test_one_visual_token_starts_as_the_words_of_the_image():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(9, 3, generator=generator)
    # Features that tell the caption's rare token; token 0 is in every caption.
    captions = [[0, 1 + i % 4] for i in range(400)]
    features = torch.eye(4)[[i % 4 for i in range(400)]]
    weight, bias = words_of_images(features, captions, embeddings)
    maps = CaptioningMap(4, 3, 3)
    start_captioning(maps, embeddings[[7, 8, 7]], 1, (weight, bias))
    visual = maps(torch.eye(4))
    for token in range(1, 5):
        own = visual[token - 1, 1]
        nearest = torch.nn.functional.cosine_similarity(own[None], embeddings[1:5]).argmax()
        assert int(nearest) == token - 1
    torch.testing.assert_close(maps.linear.bias.view(3, 3)[[0, 2]], embeddings[[7, 7]])


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
    size = MapperSize(kind=kind, hidden_dim=hidden, layers=2, heads=2, feedforward_dim=32)
    mean = (targets - targets.mean(0)).square().mean()
    losses = []
    for fitted in (False, True):
        torch.manual_seed(0)
        mapper = new_mapper(12, 3, 5, 7, size)
        if fitted:
            start_mapper(mapper, inputs[:300], NOTHING, targets[:300])
            begun = (mapper(inputs[300:], NOTHING) - targets[300:]).square().mean()
            assert begun < 2 * mean
        optimizer = torch.optim.AdamW(mapper.parameters(), lr=3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            (mapper(inputs[:300], NOTHING) - targets[:300]).norm(dim=-1).mean().backward()
            optimizer.step()
        losses.append(
            float((mapper(inputs[300:], NOTHING) - targets[300:]).norm(dim=-1).mean().detach())
        )
    assert losses[1] < losses[0]


def test_gill_mapper_starts_as_a_regression():
    inputs, targets = related()
    torch.manual_seed(0)
    mapper = new_mapper(
        12, 3, 5, 7, MapperSize(hidden_dim=16, layers=1, heads=2, feedforward_dim=32)
    )
    start_mapper(mapper, inputs[:300], NOTHING, targets[:300])
    mean = (targets - targets.mean(0)).square().mean()
    assert (mapper(inputs[300:], NOTHING) - targets[300:]).square().mean() < 0.6 * mean


def test_whitened_components_and_back():
    torch.manual_seed(0)
    values = 5 + torch.randn(900, 12) @ (torch.randn(12, 12) * torch.logspace(-1, 1, 12))
    down, up = nn.Linear(12, 12), nn.Linear(12, 12)
    whiten(down, values)
    torch.testing.assert_close(down(values).mT.cov(correction=0), torch.eye(12), atol=1e-2, rtol=0)
    components = unwhiten(up, values)
    torch.testing.assert_close(up(components(values)), values, atol=1e-3, rtol=1e-3)
    difference = values[1:] - values[:-1]
    torch.testing.assert_close(
        up(components(difference, centred=True)) - up.bias, difference, atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("kind", get_args(MapperKind))
def test_a_start_is_fitted_to_states_plus_embeddings(kind):
    """What the mapper will read, not the states alone."""
    inputs, targets = related(60)
    embeddings = torch.randn(3, 12)
    size = MapperSize(kind=kind, hidden_dim=16, layers=1, heads=2, feedforward_dim=32)
    made = []
    for states, added in ((inputs, embeddings), (inputs + embeddings, NOTHING)):
        torch.manual_seed(0)
        mapper = new_mapper(12, 3, 5, 7, size)
        start_mapper(mapper, states, added, targets)
        made.append(mapper(states, added))
    assert torch.equal(made[0], made[1])


def test_a_mapper_without_a_start_is_refused():
    with pytest.raises(TypeError, match=r"Mapper has no data-dependent initialization; use mapper"):
        start_mapper(Mapper(5, 7), torch.zeros(2, 3, 12), NOTHING, torch.zeros(2, 5, 7))
