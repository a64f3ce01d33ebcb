"""[IMG] tokens beside the vocabulary of a real, tiny language model."""

import pytest
import torch

from gill.backbones.testing import micro_models
from gill.tokens import ImgTokenEmbeddings


@pytest.fixture(scope="module")
def language():
    return micro_models.language_model()


def test_ids_follow_the_vocabulary(language):
    tokens = ImgTokenEmbeddings(3, language)
    assert tokens.first_id == language.vocab_size
    assert len(tokens) == 3
    assert tokens.weight.shape == (3, language.dim)


def test_rows_have_the_mean_norm_at_the_start_and_after_a_rescale(language):
    tokens = ImgTokenEmbeddings(3, language)
    mean = language.embedding.weight.norm(dim=-1).mean()
    torch.testing.assert_close(tokens.weight.norm(dim=-1), mean.expand(3))
    direction = tokens.weight.detach() / mean
    with torch.no_grad():
        tokens.weight.mul_(torch.tensor([[0.1], [2.0], [30.0]]))
    tokens.rescale()
    torch.testing.assert_close(tokens.weight.detach(), direction * mean)


def test_a_row_of_zeros_stays_finite(language):
    tokens = ImgTokenEmbeddings(2, language)
    with torch.no_grad():
        tokens.weight[0] = 0
    tokens.rescale()
    assert torch.isfinite(tokens.weight).all()


def test_logits_are_products_with_the_rows(language):
    tokens = ImgTokenEmbeddings(3, language)
    hidden = torch.randn(4, 5, language.dim)
    expected = torch.einsum("abd,rd->abr", hidden, tokens.weight)
    torch.testing.assert_close(tokens.logits(hidden), expected)
    assert tokens.logits(hidden.half()).dtype == torch.float32


def test_the_norm_is_no_part_of_a_checkpoint(language):
    assert set(ImgTokenEmbeddings(2, language).state_dict()) == {"weight"}


def test_none_is_too_few(language):
    with pytest.raises(ValueError, match="num_img_tokens is 0"):
        ImgTokenEmbeddings(0, language)
