"""The text layers of the scene generator."""

import torch

from gill.backbones.embedded.text_encoder import TextLayers, TextShape


def test_text_rows_do_not_depend_on_padding():
    torch.manual_seed(0)
    shape = TextShape(states=16, tokens=8, queries=3, width=16, depth=2, heads=2, hidden=16)
    layers = TextLayers(shape).eval()
    states, mask = torch.randn(2, 8, 16), torch.tensor([[1] * 5 + [0] * 3, [1] * 8])
    rows = layers(states, mask)
    assert rows.shape == (2, 3, 16)
    assert torch.allclose(rows[:1], layers(states[:1, :5], mask[:1, :5]), atol=1e-5)
    assert not torch.allclose(rows[1:], layers(states[1:, :5], mask[1:, :5]), atol=1e-2)
    assert (rows.std(-1, unbiased=False) - 1).abs().max() < 1e-2
