"""The frozen language model: conventions of families, and models that cannot be one."""

import math

import pytest
import torch
import torch.nn.functional as F
from language_families import FAMILIES, GROUPED, byte_level, micro

from gill.backbones.language import (
    LanguageModel,
    UnsuitableModelError,
    convert_embedded,
    load_pretrained,
)
from gill.backbones.testing import micro_models
from gill.backbones.testing.families import LANGUAGE
from gill.batches import AdapterBatch
from gill.losses import LossWeights
from gill.model import Adapters, GillModel
from gill.specs import AdapterSpec

CAPTIONS = ["a cat", "flag of france", "an old red truck, clip art", "x", "3d emoji of a tree"]


R, K = 3, 2


def batch_of(model):
    torch.manual_seed(3)
    count = len(CAPTIONS)
    return AdapterBatch(model.tokenize(CAPTIONS), torch.randn(count, 6), torch.randn(count, 4, 5))


def test_other_scripts_are_cut_between_bytes_and_read_back():
    language = micro("Llama", tokenizer=byte_level(), **GROUPED)
    ids = language.tokenize(["猫と犬"], 100)[0]
    assert len(ids) == 9
    assert language.tokenizer.decode(ids) == "猫と犬"
    assert language.tokenize(["猫と犬"], 4) == [ids[:4]]


def test_conventions_of_the_first_token():
    assert FAMILIES["opt"]().tokenize(["ab"], 9)[0][0] == 1
    for family in ("qwen2", "gpt-neox"):
        language = FAMILIES[family]()
        assert not language.prepends_bos
        assert language.tokenizer.decode(language.tokenize(["ab"], 9)[0]).replace(" ", "") == "ab"


def test_an_encoder_decoder_is_refused_by_name():
    from transformers import T5Config, T5ForConditionalGeneration

    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    with pytest.raises(ValueError, match=r"my-t5.*encoder-decoder.*use a decoder-only"):
        LanguageModel(t5, micro_models.tokenizer(), "my-t5")


def test_an_encoder_is_refused_by_what_it_does():
    from transformers import BertConfig, BertLMHeadModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = BertLMHeadModel(BertConfig(vocab_size=60, intermediate_size=16, **sizes))
    with pytest.raises(UnsuitableModelError, match=r"my-bert \(BertLMHeadModel\) is not causal"):
        LanguageModel(bert, micro_models.tokenizer(), "my-bert")


def test_a_model_without_input_embeddings_or_cache_is_refused():
    from transformers import MambaConfig, MambaForCausalLM

    mamba = MambaForCausalLM(MambaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1))
    with pytest.raises(UnsuitableModelError, match=r"my-mamba .* does not take past_key_values"):
        LanguageModel(mamba, micro_models.tokenizer(), "my-mamba")
    language = micro_models.language_model()

    def forward(input_ids=None, attention_mask=None, past_key_values=None):
        raise AssertionError

    language.base.forward = forward
    with pytest.raises(UnsuitableModelError, match=r"bare .* does not take inputs_embeds"):
        LanguageModel(language.model, language.tokenizer, "bare")


@pytest.fixture
def saved_llama(tmp_path):
    language = micro("Llama", tie_word_embeddings=False, hidden_size=64, intermediate_size=128)
    language.model.save_pretrained(tmp_path)
    language.tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_a_quantised_model_gives_near_states_and_gradients(saved_llama, quantization):
    pytest.importorskip("bitsandbytes")
    name, cpu = str(saved_llama), torch.device("cpu")
    whole = load_pretrained(name, "float32", cpu, "eager")
    small = load_pretrained(name, "float32", cpu, "eager", quantization)
    bits = {"8bit": torch.int8, "4bit": torch.uint8}[quantization]
    assert small.base.layers[0].mlp.up_proj.weight.dtype == bits
    found = []
    for language in (whole, small):
        torch.manual_seed(2)
        adapters = Adapters(
            AdapterSpec(
                num_img_tokens=R,
                num_visual_tokens=K,
                retrieval_dim=8,
                vision_dim=6,
                llm_dim=language.dim,
            ),
            language,
        )
        model = GillModel(language, adapters, max_caption_tokens=40)
        loss = model.losses(batch_of(model), LossWeights(), 0.0)["loss"]
        grad = torch.autograd.grad(loss, adapters.captioning.linear.weight)[0]
        found.append((loss.detach(), grad.flatten()))
    assert float(found[1][0]) == pytest.approx(float(found[0][0]), rel=0.02)
    assert float(F.cosine_similarity(found[0][1], found[1][1], dim=0)) > 0.9


def test_quantised_loading_without_the_library_says_what_to_install(saved_llama, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"'4bit'.*-e '\.\[quantized\]'"):
        load_pretrained(str(saved_llama), "float32", torch.device("cpu"), "eager", "4bit")


@pytest.mark.parametrize("attention", ["auto", "sdpa"])
def test_the_attention_implementation_is_what_the_model_supports(tmp_path, attention):
    llama = micro("Llama", num_hidden_layers=1)
    llama.model.save_pretrained(tmp_path)
    llama.tokenizer.save_pretrained(tmp_path)
    cpu = torch.device("cpu")
    language = load_pretrained(str(tmp_path), "float32", cpu, attention)
    assert language.model.config._attn_implementation == {"auto": "eager"}.get(attention, attention)
    ids = torch.tensor([[5, 9, 12, 7]])
    expected = llama.hidden(llama.embed(ids), torch.ones_like(ids))[0]
    found = language.hidden(language.embed(ids), torch.ones_like(ids))[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_an_attention_implementation_that_a_model_lacks_is_refused(tmp_path):
    bloom = LANGUAGE["bloom"].build()
    bloom.save_pretrained(tmp_path)
    micro_models.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"parts.language.attention is 'sdpa'.*Use 'auto'"):
        load_pretrained(str(tmp_path), "float32", torch.device("cpu"), "sdpa")
    assert load_pretrained(str(tmp_path), "float32", torch.device("cpu")).name == str(tmp_path)


def test_a_folder_with_another_kind_of_model_is_refused(tmp_path):
    from transformers import T5Config

    T5Config(vocab_size=60, d_model=16).save_pretrained(tmp_path)
    with pytest.raises(UnsuitableModelError, match=r"T5Config.* is not a causal language model"):
        load_pretrained(str(tmp_path), "float32", torch.device("cpu"))


@pytest.mark.slow
def test_the_embedded_language_model_converts_once_and_knows_language(tmp_path):
    folder = convert_embedded(tmp_path / "llm")
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert convert_embedded(folder) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    model = load_pretrained(str(folder), "float32", torch.device("cpu"), "eager")
    assert (model.dim, model.vocab_size, model.tied) == (576, 49152, True)
    ids = torch.tensor(model.tokenize(["The capital of France is"], 16))
    hidden, _ = model.hidden(model.embed(ids), torch.ones_like(ids))
    assert model.tokenizer.decode(model.logits(hidden[0, -1]).argmax()) == " Paris"


def test_no_captions_are_no_ids():
    assert micro_models.language_model().tokenize([], 9) == []


def test_logits_are_capped_by_hand():
    language = FAMILIES["gemma2"]()
    assert language.logit_cap == 0.5
    found = language.cap(torch.tensor([-100.0, 0.0, 0.25, 100.0]))
    torch.testing.assert_close(found, torch.tensor([-0.5, 0.0, 0.5 * math.tanh(0.5), 0.5]))
    plain = torch.tensor([-100.0, 7.0])
    assert torch.equal(FAMILIES["opt"]().cap(plain), plain)


def test_padding_may_be_anywhere():
    """Left of a sequence or behind it: states at its tokens are those of the sequence alone."""
    language = micro("Llama", **GROUPED)
    ids = torch.tensor([[5, 6, 7]])
    alone, _ = language.hidden(language.embed(ids), torch.ones(1, 3, dtype=torch.long))
    padded = torch.tensor([[0, 0, 5, 6, 7], [5, 6, 7, 0, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    found, _ = language.hidden(language.embed(padded), mask)
    torch.testing.assert_close(found[0, 2:], alone[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1, :3], alone[0], atol=1e-5, rtol=1e-5)


def test_layers_that_cannot_be_told_apart_are_refused():
    language = micro_models.language_model()
    language.base = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="tiny OPT names no layers for it; turn checkpoint_act"):
        language.checkpoint_activations()


def test_a_tokenizer_without_an_end_of_text_is_refused():
    language, words = micro_models.language_model(), micro_models.tokenizer()
    words.eos_token = None
    with pytest.raises(ValueError, match="the tokenizer of mine has no end-of-text token"):
        LanguageModel(language.model, words, "mine")
