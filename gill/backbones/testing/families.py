"""Micro language models of the families that are tried: real classes, random weights, width 32.

The windows and the chunks of recurrent layers are shorter than the sequences of the tests, which
they bear on only then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from gill.backbones.testing import micro_models

Outcome = Literal["works", "refused"]
WINDOW = 5
_STRENGTH = 6.0  # of the matrices, so that a state depends on its context and not its token alone


@dataclass(frozen=True)
class Family:
    """A family of language models.

    Attributes:
        title: what its makers call it.
        model: its class in transformers, without ``ForCausalLM``.
        changes: of its configuration, over common sizes.
        outcome: what GILL does with it. why: part of the message, where it is refused.
        note: what is particular about it.
    """

    title: str
    model: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome = "works"
    why: str = ""
    note: str = ""

    def build(self, attention: str = "eager") -> Any:
        """A two-layer model of the family."""
        import transformers

        config = getattr(transformers, _CONFIGS.get(self.model, f"{self.model}Config"))(
            **{**_SIZES, "vocab_size": len(micro_models.tokenizer()), **self.changes}
        )
        config._attn_implementation = attention
        name = _MODELS.get(self.model, f"{self.model}ForCausalLM")
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = getattr(transformers, name)(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and "A_log" not in name:
                    parameter.mul_(_STRENGTH)
        return model.eval()


_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_CONFIGS = {"Gemma3": "Gemma3TextConfig", "Qwen3_5": "Qwen3_5TextConfig"}
_MODELS = {"GPT2": "GPT2LMHeadModel"}
_SHARED = {"num_key_value_heads": 2}
_HEADS = {"num_key_value_heads": 2, "head_dim": 8}
_WINDOW = {"sliding_window": WINDOW}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_MAMBA = {
    "num_key_value_heads": 2,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_chunk_size": 4,
}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
_DELTA = {
    **_HEADS,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_WINDOWED, _RECURRENT = "sliding window", "recurrent layers"
_PLAIN_PASS = "trains without the cached prefix, which it would overwrite"  # noqa: S105

LANGUAGE: Mapping[str, Family] = {
    "opt": Family("OPT", "OPT", {"word_embed_proj_dim": 32, "ffn_dim": 48}),
    "opt-350m": Family(
        "OPT-350m",
        "OPT",
        {"word_embed_proj_dim": 16, "do_layer_norm_before": False, "ffn_dim": 48},
        note="embeddings narrower than the layers",
    ),
    "gpt2": Family("GPT-2", "GPT2", _GPT),
    "gpt-j": Family("GPT-J", "GPTJ", {**_GPT, "rotary_dim": 4}, note="no fused attention"),
    "gpt-neo": Family(
        "GPT-Neo",
        "GPTNeo",
        {
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
        },
        note=f"{_WINDOWED}; no fused attention",
    ),
    "gpt-neox": Family("GPT-NeoX, Pythia", "GPTNeoX", {"tie_word_embeddings": False}),
    "bloom": Family("Bloom", "Bloom", {"n_layer": 2, "n_head": 4}, note="no fused attention"),
    "mpt": Family(
        "MPT",
        "Mpt",
        {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256},
        note="no fused attention",
    ),
    "falcon": Family("Falcon", "Falcon"),
    "llama": Family("Llama", "Llama", {**_SHARED, "tie_word_embeddings": False}),
    "mistral": Family("Mistral", "Mistral", {**_HEADS, **_WINDOW}, note=_WINDOWED),
    "mixtral": Family("Mixtral", "Mixtral", {**_SHARED, **_EXPERTS, **_WINDOW}, note=_WINDOWED),
    "phi3": Family("Phi-3, Phi-4", "Phi3", {**_SHARED, **_WINDOW}, note=_WINDOWED),
    "qwen2": Family("Qwen2", "Qwen2", _SHARED),
    "qwen3": Family("Qwen3", "Qwen3", _HEADS),
    "qwen3-next": Family(
        "Qwen3-Next",
        "Qwen3Next",
        {
            **_DELTA,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
        note=f"{_RECURRENT}; {_PLAIN_PASS}",
    ),
    "qwen3.5": Family("Qwen3.5", "Qwen3_5", _DELTA, note=f"{_RECURRENT}; {_PLAIN_PASS}"),
    "gemma": Family("Gemma", "Gemma", _HEADS),
    "gemma2": Family(
        "Gemma 2",
        "Gemma2",
        {**_HEADS, **_WINDOW, "final_logit_softcapping": 3.0},
        note=f"{_WINDOWED}; capped logits; no fused attention",
    ),
    "gemma3": Family(
        "Gemma 3",
        "Gemma3",
        {**_HEADS, **_WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
        note=_WINDOWED,
    ),
    "gpt-oss": Family(
        "gpt-oss",
        "GptOss",
        {**_HEADS, **_EXPERTS, **_WINDOW},
        note=f"{_WINDOWED}; no fused attention",
    ),
    "granite": Family(
        "Granite 3",
        "Granite",
        {**_SHARED, "logits_scaling": 8.0, "embedding_multiplier": 3.0},
        note="scaled logits",
    ),
    "granite-hybrid": Family(
        "Granite 4 hybrid",
        "GraniteMoeHybrid",
        {
            **_MAMBA,
            **_EXPERTS,
            "layer_types": ["mamba", "attention"],
            "shared_intermediate_size": 48,
            "logits_scaling": 4.0,
        },
        note=f"{_RECURRENT}; scaled logits",
    ),
    "cohere": Family("Cohere", "Cohere", _SHARED, note="scaled logits"),
    "cohere2": Family(
        "Cohere 2", "Cohere2", {**_SHARED, **_WINDOW}, note=f"{_WINDOWED}; scaled logits"
    ),
    "bamba": Family("Bamba", "Bamba", {**_MAMBA, "attn_layer_indices": [1]}, note=_RECURRENT),
    "nemotron-h": Family(
        "Nemotron-H",
        "NemotronH",
        {
            **_HEADS,
            "layers_block_type": ["mamba", "attention"],
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "n_groups": 1,
            "ssm_state_size": 8,
            "chunk_size": 4,
        },
        note=_RECURRENT,
    ),
    "zamba2": Family(
        "Zamba2",
        "Zamba2",
        {
            "num_hidden_layers": 3,
            "layers_block_type": ["mamba", "hybrid", "mamba"],
            "num_key_value_heads": 4,
            "mamba_d_state": 8,
            "mamba_ngroups": 1,
            "n_mamba_heads": 4,
            "chunk_size": 4,
            "num_mem_blocks": 1,
            "attention_head_dim": 16,
            "attention_hidden_size": 64,
        },
        note=_RECURRENT,
    ),
    "jamba": Family(
        "Jamba",
        "Jamba",
        {
            **_SHARED,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "num_experts": 2,
            "mamba_d_state": 8,
        },
        note=_RECURRENT,
    ),
    "lfm2": Family(
        "LFM2",
        "Lfm2",
        {**_SHARED, "layer_types": ["conv", "full_attention"]},
        note="convolutions",
    ),
    "minimax": Family(
        "MiniMax",
        "MiniMax",
        {
            **_HEADS,
            "layer_types": ["linear_attention", "full_attention"],
            "num_local_experts": 2,
            "block_size": 4,
        },
        note="linear attention; decodes a row and a token at a time, trains without the cache",
    ),
    "recurrentgemma": Family(
        "RecurrentGemma",
        "RecurrentGemma",
        {
            "num_key_value_heads": 1,
            "head_dim": 8,
            "lru_width": 32,
            "attention_window_size": WINDOW,
            "block_types": ["recurrent", "attention"],
        },
        "refused",
        "gives back no key-value cache",
    ),
    "mamba": Family(
        "Mamba", "Mamba", {"state_size": 8}, "refused", "does not take past_key_values"
    ),
    "bart": Family(
        "BART",
        "Bart",
        {
            "d_model": 32,
            "decoder_layers": 2,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 48,
            "encoder_layers": 1,
        },
        "refused",
        "is an encoder-decoder",
    ),
}
