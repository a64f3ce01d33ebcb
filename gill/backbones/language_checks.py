"""What a causal LM can do, tried on a few tokens when it is loaded.

What a model declares does not say whether it fits: an encoder may call itself a causal LM, a
recurrent layer may read padding as text, and a cache may be written to in place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

REMEDY = "use a decoder-only model, such as OPT, Llama, Qwen2, GPT-NeoX or Gemma"
EXACT, ROUNDED = 1e-3, 0.1  # relative differences that precision explains: float32, and 16 bits


class UnsuitableModelError(ValueError):
    """A model that cannot be GILL's language model; says which, why, and what to use.

    Args:
        found: the model or its configuration.
    """

    def __init__(self, name: str, found: Any, why: str) -> None:
        super().__init__(f"{name} ({type(found).__name__}) {why}; {REMEDY}")


@dataclass(frozen=True)
class Abilities:
    """Which of the fast passes give what plain passes give. The others are not used.

    Attributes:
        left_padding: rows that are padded on the left, read together and then gone on with.
            Without it rows are decoded one at a time, and padded on the right elsewhere.
        blocks_after_cache: several tokens at once after a cached prefix. Without it they are read
            one after the other.
        gradient_after_cache: a gradient to such tokens. Without it training reads the prefix again.
    """

    left_padding: bool = True
    blocks_after_cache: bool = True
    gradient_after_cache: bool = True

    @property
    def cached_training(self) -> bool:
        """Whether training may keep a batch's prefixes, padded on the left, in the cache."""
        return self.left_padding and self.blocks_after_cache and self.gradient_after_cache


class Tried(Protocol):
    """What is tried of a ``LanguageModel``."""

    name: str
    model: Any
    embedding: nn.Embedding
    vocab_size: int
    dim: int
    embed_scale: float

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings."""

    def hidden(
        self, embeddings: Tensor, mask: Tensor, past: Any = None, use_cache: bool = False
    ) -> tuple[Tensor, Any]:
        """Last hidden states and the cache."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary."""


def is_encoder_decoder(config: Any) -> bool:
    """Whether a configuration is that of two models, although one of them was asked for."""
    from transformers import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    declared = bool(getattr(config, "is_encoder_decoder", False))
    return declared or type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING


def check_kind(name: str, config: Any) -> None:
    """Refuse a configuration that is not a causal LM's, before any weights are read.

    Raises:
        UnsuitableModelError: it is an encoder, an encoder-decoder or the decoder of one.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsuitableModelError(name, config, "is not a causal language model")
    if is_encoder_decoder(config):
        # Such as BART: its decoder alone has never gone on without an encoder's states.
        raise UnsuitableModelError(name, config, "is an encoder-decoder, whose decoder needs both")


@torch.no_grad()
def check_fit(language: Tried) -> None:
    """Try the model on two tokens.

    Raises:
        UnsuitableModelError: it makes its embeddings or its logits in a way that is not known here,
            is not causal, keeps no cache, or passes no gradient to its input embeddings.
        ValueError: it makes numbers that are not finite.
    """
    name, model = language.name, language.model
    ids = torch.tensor([[0, 1], [0, 2]], device=language.device).clamp(max=language.vocab_size - 1)
    every = torch.ones_like(ids)
    rows = language.embedding.weight[ids] * language.embed_scale
    _check_finite(name, "embeddings", rows)
    if not torch.allclose(language.embed(ids).float(), rows.float(), rtol=0.02, atol=1e-4):
        why = "makes its input embeddings in a way that is not known here"
        raise UnsuitableModelError(name, model, why)
    hidden, _ = language.hidden(language.embed(ids), every)
    if hidden.shape[-1] != language.dim:
        why = f"has hidden states of width {hidden.shape[-1]}, its embeddings {language.dim}"
        raise UnsuitableModelError(name, model, why)
    hidden = hidden.float()
    _check_finite(name, "hidden states", hidden)
    noise = (1e-3 if language.dtype == torch.float32 else 2e-2) * float(hidden.std())
    if not torch.allclose(hidden[0, 0], hidden[1, 0], atol=noise):
        why = "is not causal: its state at a token depends on later tokens, as in an encoder"
        raise UnsuitableModelError(name, model, why)
    ours = language.logits(hidden[:, -1]).float()
    own = model(input_ids=ids, attention_mask=every).logits[:, -1].float()
    _check_finite(name, "logits", own)
    if not torch.allclose(ours, own, rtol=0.05, atol=0.05 * float(own.std())):
        why = "does more than its output layer between the hidden states and the logits"
        raise UnsuitableModelError(name, model, why)
    with torch.enable_grad():
        start = language.embed(ids).requires_grad_()
        hidden, _ = language.hidden(start, every)
        reached = torch.autograd.grad(hidden[..., 0].float().sum(), start, allow_unused=True)[0]
    if reached is None or not reached.any():
        raise UnsuitableModelError(name, model, "passes no gradient to its input embeddings")


def _check_finite(name: str, what: str, values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"{name} makes {what} that are not finite numbers; its weights are damaged, or its "
            "precision is too low for them"
        )


def abilities_of(language: Tried) -> Abilities:
    """Compare each fast pass with a plain one, on seven tokens.

    Raises:
        UnsuitableModelError: going on after the cache, a token at a time, gives other states.
    """
    trial = _Trial(language)
    if not trial.holds(trial.steps):
        why = "gives other states after its key-value cache than in one pass"
        raise UnsuitableModelError(language.name, language.model, why)
    found = Abilities(
        trial.holds(trial.padded), trial.holds(trial.block), trial.holds(trial.gradient)
    )
    lacking = [f.name for f in fields(found) if not getattr(found, f.name)]
    if lacking:
        logger.warning(
            "%s (%s) lacks %s: slower passes that are right for it are used instead",
            language.name, type(language.model).__name__, ", ".join(lacking),
        )  # fmt: skip
    return found


class _Trial:
    """One row of seven tokens, read in several ways; each must give what one plain pass gives."""

    CUT, GAP = 4, 2  # where the cached prefix ends, and padding of the shorter row

    def __init__(self, language: Tried) -> None:
        self.language = language
        ids = torch.arange(1, 8, device=language.device) * 7919 % language.vocab_size
        self.row = language.embed(ids[None]).detach()
        self.mask = torch.ones_like(ids[None])
        quantised = getattr(language.model, "is_quantized", False)
        exact = language.dtype == torch.float32 and not quantised
        self.tolerance = EXACT if exact else ROUNDED
        with torch.no_grad():
            self.plain = language.hidden(self.row, self.mask)[0]

    def holds(self, way: Callable[[], tuple[Tensor, Tensor]]) -> bool:
        """Whether a way works and gives the plain result. A model's own code may fail anyhow."""
        try:
            found, expected = way()
        except UnsuitableModelError:
            raise
        except Exception as error:  # noqa: BLE001
            logger.info("%s: %s: %s", self.language.name, way.__name__, error)
            return False
        difference = (found.float() - expected.float()).norm()
        return bool(difference <= self.tolerance * expected.float().norm())

    @torch.no_grad()
    def steps(self) -> tuple[Tensor, Tensor]:
        """A prefix, then one token after the other."""
        return self._read(self.row, self.mask, 1), self.plain

    @torch.no_grad()
    def block(self) -> tuple[Tensor, Tensor]:
        """A prefix, then the rest at once."""
        return self._read(self.row, self.mask, self.row.shape[1] - self.CUT), self.plain

    @torch.no_grad()
    def padded(self) -> tuple[Tensor, Tensor]:
        """The row beside its own end, padded on the left with what is not to be read."""
        padding, end = self.row[:, -self.GAP :], self.row[:, self.GAP :]
        rows = torch.cat([self.row, torch.cat([padding, end], dim=1)])
        mask = self.mask.repeat(2, 1)
        mask[1, : self.GAP] = 0
        plain, _ = self.language.hidden(end, self.mask[:, self.GAP :])
        expected = torch.cat([self.plain[0], plain[0]])
        together, _ = self.language.hidden(rows, mask)
        read = [together, self._read(rows, mask, 1)]
        found = [part for hidden in read for part in (hidden[0], hidden[1, self.GAP :])]
        return torch.cat(found), expected.repeat(len(read), 1)

    def gradient(self) -> tuple[Tensor, Tensor]:
        """The gradient to the rest, after a prefix that was read without one."""
        prefix = self.row[:, : self.CUT]
        found = []
        for cached in (True, False):
            rest = self.row[:, self.CUT :].clone().requires_grad_()
            if cached:
                with torch.no_grad():
                    _, past = self.language.hidden(prefix, self.mask[:, : self.CUT], use_cache=True)
                hidden, _ = self.language.hidden(rest, self.mask, past=past)
            else:
                whole, _ = self.language.hidden(torch.cat([prefix, rest], dim=1), self.mask)
                hidden = whole[:, self.CUT :]
            weights = torch.linspace(0, 1, hidden.numel(), device=hidden.device).view_as(hidden)
            found.append(torch.autograd.grad((hidden.float() * weights).sum(), rest)[0])
        return found[0], found[1]

    def _read(self, rows: Tensor, mask: Tensor, width: int) -> Tensor:
        hidden, past = self.language.hidden(
            rows[:, : self.CUT], mask[:, : self.CUT], use_cache=True
        )
        parts = [hidden]
        for start in range(self.CUT, rows.shape[1], width):
            stop = start + width
            hidden, past = self.language.hidden(
                rows[:, start:stop], mask[:, :stop], past=past, use_cache=True
            )
            parts.append(hidden)
        return torch.cat(parts, dim=1)
