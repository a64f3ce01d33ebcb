"""Cached greedy captions equal uncached ones."""

import torch

from gill.backbones import tiny
from gill.generation import caption_images
from gill.model import Adapters, GillModel
from gill.specs import AdapterSpec


def test_cached_captions_equal_uncached():
    language = tiny.language_model()
    torch.manual_seed(0)
    adapters = Adapters(AdapterSpec(2, 2, 8, 6, language.dim), language)
    model = GillModel(language, adapters)
    features = torch.randn(4, 6) * 3
    made = caption_images(model, features, max_new_tokens=7)
    for row, feature in enumerate(features):
        embeddings = model.visual_embeddings(feature[None])
        ids = []
        for _ in range(7):
            hidden, _ = language.hidden(embeddings, torch.ones(embeddings.shape[:2]).long())
            token = int(language.logits(hidden[:, -1]).argmax())
            if token == language.eos_id:
                break
            ids.append(token)
            embeddings = torch.cat([embeddings, language.embed(torch.tensor([[token]]))], 1)
        assert made[row] == language.tokenizer.decode(ids).strip()
    assert len(set(made)) > 1
