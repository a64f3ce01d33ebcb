"""W_cap: each visual token is a linear map of its own."""

import torch

from gill.captioning import CaptioningMap


def test_each_visual_token_has_rows_of_its_own():
    captioning = CaptioningMap(vision_dim=4, num_visual_tokens=3, llm_dim=2)
    features = torch.randn(5, 4)
    found = captioning(features)
    assert found.shape == (5, 3, 2)
    for token in range(3):
        rows = slice(2 * token, 2 * token + 2)
        plain = features @ captioning.linear.weight[rows].T + captioning.linear.bias[rows]
        torch.testing.assert_close(found[:, token], plain)
