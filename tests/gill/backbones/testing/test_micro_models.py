"""The micro models that tests and the recipe tiny use."""

import pytest
import torch

from gill.backbones.testing import micro_models

MODELS = {
    "opt": micro_models.language_model,
    "llama": lambda: micro_models.llama_model(tied=False),
    "vision": micro_models.vision_encoder,
    "generator": micro_models.image_generator,
}


@pytest.mark.parametrize("kind", MODELS)
def test_parts_stay_in_evaluation_mode_and_frozen(kind):
    part = MODELS[kind]()
    part.train()
    assert not any(module.training for module in part.modules())
    assert not any(p.requires_grad for p in part.parameters())


@pytest.mark.parametrize("kind", MODELS)
def test_weights_are_fixed_and_nobody_elses_random_numbers_are_used(kind):
    """The recipe tiny makes its parts anew in each process, and training draws beside them."""
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = MODELS[kind]().state_dict()
    assert torch.equal(torch.rand(3), expected)
    again = MODELS[kind]().state_dict()
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_tokenizer_reads_letters_by_hand():
    words = micro_models.tokenizer()
    a = words("a", add_special_tokens=False)["input_ids"][0]
    assert words("aBc")["input_ids"] == [words.bos_token_id, a, a + 1, a + 2]
    assert words("a[b", add_special_tokens=False)["input_ids"] == [a, words.unk_token_id, a + 1]
    assert words("", add_special_tokens=False)["input_ids"] == []


def test_output_layers_are_tied_or_not():
    assert micro_models.llama_model(tied=True).tied
    assert not micro_models.llama_model(tied=False).tied
