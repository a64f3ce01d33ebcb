"""Frozen parts by the name that a recipe gives: micro, embedded, or a folder of one's own."""

import pytest
import torch

from flows.recipes import tiny
from gill.backbones.language import UnsuitableModelError
from gill.backbones.testing import micro_models
from tasks.config.parts import GeneratorConfig, LanguageConfig, VisionConfig
from tasks.parts.loading import load_generator, load_language, load_vision

CPU = tiny().runtime.model_copy(update={"device": "cpu"})


@pytest.fixture
def llama(tmp_path):
    """A folder with a micro Llama, as somebody would keep one."""
    made = micro_models.llama_model(tied=False)
    made.model.save_pretrained(tmp_path / "llama")
    made.tokenizer.save_pretrained(tmp_path / "llama")
    return str(tmp_path / "llama")


def test_tiny_parts_are_the_micro_models():
    assert load_language(LanguageConfig(name="tiny"), CPU).name == "tiny OPT"
    assert load_vision(VisionConfig(name="tiny"), CPU).pooled_dim == 32
    assert load_generator(GeneratorConfig(name="tiny"), CPU).num_tokens == 8


def test_a_language_model_is_loaded_in_its_precision_with_exact_attention(llama):
    """On a CPU the fused attention is several times slower backwards, and rounds otherwise."""
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        language = load_language(LanguageConfig(name=llama, precision=precision), CPU)
        assert language.dtype == dtype
        assert language.model.config._attn_implementation == "eager"
        assert language.name == llama


def test_activations_are_recomputed_where_a_recipe_says_so(llama):
    def kept(**changes):
        """How many numbers a pass keeps for its gradient."""
        config = LanguageConfig(name=llama, precision="float32", **changes)
        language, held = load_language(config, CPU), []
        start = language.embed(torch.arange(4, 16)[None]).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda x: held.append(x.numel()) or x, id):
            language.hidden(start, torch.ones(1, 12, dtype=torch.long))
        return sum(held)

    assert kept(checkpoint_activations=True) < 0.5 * kept()


def test_a_generators_precision_is_that_of_the_recipe(tmp_path):
    folder = tmp_path / "pipeline"
    micro_models.image_generator().pipeline.save_pretrained(folder)
    config = GeneratorConfig(name=str(folder), precision="bfloat16")
    generator = load_generator(config, CPU)
    assert (generator.precision, generator.num_tokens, generator.dim) == ("bfloat16", 8, 16)


def test_a_folder_of_another_kind_is_refused_by_name(tmp_path):
    from transformers import T5Config

    T5Config(vocab_size=60, d_model=16).save_pretrained(tmp_path)
    with pytest.raises(UnsuitableModelError, match=rf"{tmp_path}.*not a causal language model"):
        load_language(LanguageConfig(name=str(tmp_path)), CPU)
