"""Micro language models of several families, with the conventions of their tokenizers."""

import torch

from gill.backbones.language import LanguageModel
from gill.backbones.testing import micro_models


def micro(kind, **changes):
    """A two-layer model of a family with random weights and the character tokenizer."""
    import transformers

    words = changes.pop("tokenizer", None) or micro_models.tokenizer()
    sizes = {
        "vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 256,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "attn_implementation": "eager",
    }  # fmt: skip
    torch.manual_seed(1)
    name = {"Gemma3": "Gemma3Text"}.get(kind, kind)
    config = getattr(transformers, f"{name}Config")(**{**sizes, **changes})
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    return LanguageModel(model, words, f"micro {kind}")


def without_bos():
    """Qwen2's convention: no BOS token at all."""
    words = micro_models.tokenizer()
    words.backend_tokenizer.post_processor = None
    words.bos_token = None
    return words


def bos_is_eos():
    """GPT-NeoX's convention: one token that begins and ends texts, and is not prepended."""
    words = micro_models.tokenizer()
    words.backend_tokenizer.post_processor = None
    words.bos_token = words.eos_token
    return words


GROUPED = {"num_key_value_heads": 2, "head_dim": 8}


FAMILIES = {
    "opt": micro_models.language_model,
    # As OPT-350m: embeddings narrower than the layers, and the norm after each block.
    "opt-350m": lambda: micro(
        "OPT", word_embed_proj_dim=16, do_layer_norm_before=False, ffn_dim=48, dropout=0.1
    ),
    "llama-tied": lambda: micro("Llama", tie_word_embeddings=True, **GROUPED),
    "llama-untied": lambda: micro("Llama", tie_word_embeddings=False, **GROUPED),
    "qwen2": lambda: micro(
        "Qwen2", tie_word_embeddings=True, num_key_value_heads=2, tokenizer=without_bos()
    ),
    "gpt-neox": lambda: micro("GPTNeoX", tie_word_embeddings=False, tokenizer=bos_is_eos()),
    "gemma": lambda: micro("Gemma", **GROUPED),
    "gemma2": lambda: micro("Gemma2", final_logit_softcapping=0.5, sliding_window=64, **GROUPED),
    "gemma3": lambda: micro("Gemma3", sliding_window=64, **GROUPED),
}


def byte_level():
    """A byte-level tokenizer, as GPT-2's without merges: knows every script, has no unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<pad>", "<s>", "</s>", *alphabet]
    core = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="</s>",
        bos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
    )
