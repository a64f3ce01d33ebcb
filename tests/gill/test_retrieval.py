"""The shared space of [IMG] states and images, and its temperature."""

import math

import pytest
import torch

from gill.retrieval import RetrievalMaps


@pytest.fixture
def maps():
    torch.manual_seed(0)
    return RetrievalMaps(llm_dim=6, vision_dim=5, retrieval_dim=3)


def test_both_sides_are_unit_vectors_of_the_maps(maps):
    states, features = torch.randn(4, 2, 6), torch.randn(4, 5)
    text, image = maps.embed_text(states), maps.embed_image(features)
    plain = maps.text(states[:, 0])
    torch.testing.assert_close(text, plain / plain.norm(dim=-1, keepdim=True))
    plain = maps.image(features)
    torch.testing.assert_close(image, plain / plain.norm(dim=-1, keepdim=True))


def test_only_the_first_img_state_is_mapped(maps):
    states = torch.randn(4, 3, 6)
    changed = torch.cat([states[:, :1], torch.randn(4, 2, 6)], dim=1)
    assert torch.equal(maps.embed_text(states), maps.embed_text(changed))
    assert not torch.equal(maps.embed_text(states), maps.embed_text(changed.flip(1)))


def test_half_precision_is_read_and_the_answer_is_whole(maps):
    assert maps.embed_text(torch.randn(2, 2, 6).half()).dtype == torch.float32
    assert maps.embed_image(torch.randn(2, 5).bfloat16()).dtype == torch.float32


def test_the_temperature_starts_at_clips_and_stops_at_a_hundred(maps):
    assert maps.scale().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        maps.logit_scale.fill_(math.log(99.0))
    assert maps.scale().item() == pytest.approx(99.0)
    with torch.no_grad():
        maps.logit_scale.fill_(9.0)
    assert maps.scale().item() == pytest.approx(100.0)
    maps.scale().backward()
    assert float(maps.logit_scale.grad) == 0.0  # nothing pushes it further


def test_the_scale_is_capped_by_hand():
    maps = RetrievalMaps(4, 3, 2)
    maps.logit_scale.data.fill_(math.log(250.0))
    assert [float(maps.scale(cap)) for cap in (100.0, 0.0, 30.0)] == pytest.approx([100, 250, 30])
    assert float(maps.scale()) == pytest.approx(100)
