"""An inference engine of micro parts, and its sequences put together by hand."""

import torch
import torch.nn.functional as F
from PIL import Image

from gill.backbones.testing import micro_models
from gill.decision import DecisionModel
from gill.inference.engine import GillEngine
from gill.inference.index import Index
from gill.inference.prompts import ImgTokens
from gill.inference.settings import Settings
from gill.mapper import MapperSize, new_mapper
from gill.model import Adapters, GillModel
from gill.specs import AdapterSpec

R, K, RETRIEVAL = 3, 2, 8


def build(language, index=True, decision=True, **settings):
    """An engine of tiny parts; the index has 5 images named a to e."""
    vision, generator = micro_models.vision_encoder(), micro_models.image_generator()
    torch.manual_seed(0)
    spec = AdapterSpec(
        num_img_tokens=R,
        num_visual_tokens=K,
        retrieval_dim=RETRIEVAL,
        vision_dim=vision.pooled_dim,
        llm_dim=language.dim,
    )
    adapters = Adapters(spec, language).eval()
    size = MapperSize(hidden_dim=16, layers=1, heads=2, feedforward_dim=32)
    mapper = new_mapper(language.dim, R, generator.num_tokens, generator.dim, size).eval()
    vectors = F.normalize(torch.randn(5, RETRIEVAL), dim=-1)
    return GillEngine(
        GillModel(language, adapters),
        vision,
        generator,
        mapper,
        DecisionModel(language.dim).eval() if decision else None,
        Index("abcde", vectors, origin=lambda key: f"image_store/{key}") if index else None,
        Settings(steps=2, guidance_scale=2.0, **settings),
    )


def flat_image(shade):
    return Image.new("RGB", (40, 30), (shade, 255 - shade, shade // 2))


def plain_embeddings(engine, items):
    """The sequence of a prompt by hand: BOS before the first text or at the end."""
    language, adapters = engine.model.language, engine.model.adapters
    bos = language.embedding.weight[language.bos_id][None]
    parts, greeted = [], not language.prepends_bos
    for item in [items] if isinstance(items, str) else items:
        if isinstance(item, Image.Image):
            pooled = engine.vision.pooled(engine.vision.prepare([item]))
            parts.append(adapters.captioning.linear(pooled).view(K, -1))
            continue
        if not greeted:
            parts.append(bos)
            greeted = True
        if isinstance(item, ImgTokens):
            parts.append(adapters.img_tokens.weight)
        else:
            ids = language.tokenizer(item, add_special_tokens=False)["input_ids"]
            parts.append(language.embedding.weight[ids])
    return torch.cat(parts if greeted else [*parts, bos])
