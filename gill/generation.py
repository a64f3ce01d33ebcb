"""Decoding with the frozen language model and a key-value cache."""

from __future__ import annotations

import torch
from torch import Tensor

from gill.model import GillModel


@torch.no_grad()
def caption_images(model: GillModel, features: Tensor, max_new_tokens: int) -> list[str]:
    """Greedy captions of pictures, given their pooled features ``(batch, vision_dim)``.

    [IMG] tokens are not produced: a caption is text.
    """
    language = model.language
    embeddings = model.visual_embeddings(features).to(language.dtype)
    mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=language.device)
    finished = torch.zeros(len(features), dtype=torch.bool, device=language.device)
    cache = None
    produced: list[Tensor] = []
    for _ in range(max_new_tokens):
        hidden, cache = language.hidden(embeddings, mask, past=cache, use_cache=True)
        chosen = language.logits(hidden[:, -1]).argmax(-1)
        chosen = torch.where(finished, language.eos_id, chosen)
        finished |= chosen == language.eos_id
        produced.append(chosen)
        if bool(finished.all()):
            break
        embeddings = language.embed(chosen)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    rows = torch.stack(produced, dim=1).tolist()
    ended = [row[: row.index(language.eos_id)] if language.eos_id in row else row for row in rows]
    return [text.strip() for text in language.tokenizer.batch_decode(ended)]
