"""The parts of GILL composed: forward passes and losses of the adapters, and [IMG] states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gill.backbones.language import LanguageModel
from gill.captioning import CaptioningMap
from gill.losses import contrastive_loss, frozen_head_loss, generation_loss
from gill.mapper import Mapper
from gill.packing import CaptionLayout, ImgLayout, caption_layout, img_layout
from gill.retrieval import RetrievalMaps
from gill.specs import AdapterSpec
from gill.tokens import ImgTokenEmbeddings


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; all 1 in the paper."""

    captioning: float = 1.0
    img_prediction: float = 1.0
    retrieval: float = 1.0
    generation: float = 1.0


@dataclass(frozen=True)
class AdapterBatch:
    """Token ids of the captions, ready to lay out, and what belongs to them.

    Attributes:
        features: ``(batch, vision_dim)``, pooled vision features.
        targets: ``(batch, num_targets, target_dim)``, the generator's text-encoder output, only
            where a mapper is trained together with the adapters.
    """

    captions: list[list[int]]
    features: Tensor
    targets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.captions)


class Adapters(nn.Module):
    """Everything the first stage trains: W_cap, E_img, W_t2i, W_i2t and the temperature."""

    def __init__(self, spec: AdapterSpec, language: LanguageModel) -> None:
        super().__init__()
        if spec.llm_dim != language.dim:
            raise ValueError(
                f"these adapters are for a language model of width {spec.llm_dim}; "
                f"{language.name} has {language.dim}"
            )
        self.spec = spec
        self.img_tokens = ImgTokenEmbeddings(spec.num_img_tokens, language)
        self.captioning = CaptioningMap(spec.vision_dim, spec.num_visual_tokens, spec.llm_dim)
        self.retrieval = RetrievalMaps(spec.llm_dim, spec.vision_dim, spec.retrieval_dim)


class GillModel:
    """The frozen language model and the adapters, used together.

    The language model is shared and read only; nothing here registers or changes its parameters.
    """

    def __init__(
        self, language: LanguageModel, adapters: Adapters, max_caption_tokens: int = 24
    ) -> None:
        self.language, self.adapters = language, adapters
        self.max_caption_tokens = max_caption_tokens
        self._layout_bos = language.bos_id if language.prepends_bos else None

    def tokenize(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids of captions, cut so that the r [IMG] tokens always fit; "" becomes end-of-text."""
        tokens = self.language.tokenize(list(captions), self.max_caption_tokens)
        return [ids or [self.language.eos_id] for ids in tokens]

    def losses(
        self,
        batch: AdapterBatch,
        weights: LossWeights,
        packing_probability: float,
        mapper: Mapper | None = None,
    ) -> dict[str, Tensor]:
        """l_c, l_p and l_r of a batch, l_g too with a mapper, and their weighted sum ``loss``.

        One random draw decides whether the whole batch is packed in pairs. One [IMG] pass serves
        l_p, l_r and l_g.
        """
        packed = bool(torch.rand(()) < packing_probability)
        captioning = self.captioning_loss(batch, packed)
        img_states, img_prediction = self.img_pass(batch.captions, packed)
        retrieval = contrastive_loss(
            self.adapters.retrieval.embed_text(img_states),
            self.adapters.retrieval.embed_image(batch.features),
            self.adapters.retrieval.scale(),
        )
        total = (
            weights.captioning * captioning
            + weights.img_prediction * img_prediction
            + weights.retrieval * retrieval
        )
        losses = {"l_c": captioning, "l_p": img_prediction, "l_r": retrieval}
        if mapper is not None:
            if batch.targets is None:
                raise ValueError("a mapper is to be trained and the batch has no targets")
            conditioning = mapper(img_states + self.adapters.img_tokens.weight)
            losses["l_g"] = generation_loss(conditioning, batch.targets)
            total = total + weights.generation * losses["l_g"]
        return {"loss": total, **losses}

    def captioning_loss(self, batch: AdapterBatch, packed: bool) -> Tensor:
        """l_c: vocabulary logits are computed only at the positions that have a label."""
        layout = caption_layout(
            batch.captions,
            self.adapters.spec.num_visual_tokens,
            self.language.eos_id,
            self._layout_bos,
            packed,
        )
        hidden = self._caption_hidden(layout, batch.features)
        return self._token_loss(hidden, layout.labels.to(hidden.device))

    def img_pass(self, captions: list[list[int]], packed: bool) -> tuple[Tensor, Tensor]:
        """[IMG] states ``(batch, r, llm_dim)`` with gradients to E_img, and l_p.

        The prefix (all before the first [IMG] token) runs without autograd: nothing trainable
        comes before it, so its keys and values are constants. The [IMG] positions then attend to
        its cache. This equals one pass over the whole sequence.
        """
        layout = img_layout(
            captions,
            len(self.adapters.img_tokens),
            self.language.vocab_size,
            self._layout_bos,
            packed,
        )
        device = self.language.device
        prefix_mask = layout.prefix_mask.to(device)
        with torch.no_grad():
            before, cache = self.language.hidden(
                self._embed(layout.prefix), prefix_mask, use_cache=True
            )
        mask = torch.cat([prefix_mask, layout.mask.to(device)], dim=1)
        after, _ = self.language.hidden(self._embed(layout.ids), mask, past=cache)
        states = after.flatten(0, 1)[layout.state_at.to(device)]
        hidden = torch.cat([before, after], dim=1).flatten(0, 1)[layout.before_at.to(device)]
        first = torch.full((len(hidden),), self.adapters.img_tokens.first_id, device=device)
        return states.float(), self._token_loss(hidden, first)

    @torch.no_grad()
    def img_states(self, captions: list[list[int]]) -> Tensor:
        """[IMG] states ``(batch, r, llm_dim)`` of captions, without gradients."""
        layout: ImgLayout = img_layout(
            captions,
            len(self.adapters.img_tokens),
            self.language.vocab_size,
            self._layout_bos,
            packed=False,
        )
        ids = torch.cat([layout.prefix, layout.ids], dim=1)
        mask = torch.cat([layout.prefix_mask, layout.mask], dim=1).to(self.language.device)
        hidden, _ = self.language.hidden(self._embed(ids), mask)
        return hidden[:, layout.prefix.shape[1] :].float()

    def visual_embeddings(self, features: Tensor) -> Tensor:
        """W_cap: input embeddings ``(batch, k, llm_dim)`` of pooled features."""
        out: Tensor = self.adapters.captioning(features.to(self.language.device).float())
        return out

    def embed(self, ids: Tensor, visual_at: Tensor, features: Tensor) -> Tensor:
        """Input embeddings ``(rows, length, llm_dim)`` of ids and pictures that are laid out.

        Args:
            ids: ``(rows, length)``, of both vocabularies or a mark of ``gill.packing``.
            visual_at: ``(pictures * k,)`` flat positions that get the visual tokens, in order.
            features: ``(pictures, vision_dim)``.
        """
        embeddings = self._embed(ids)
        if not len(features):
            return embeddings
        visual = self.visual_embeddings(features).flatten(0, 1).to(embeddings.dtype)
        flat = embeddings.flatten(0, 1).index_copy(0, visual_at.to(embeddings.device), visual)
        return flat.view_as(embeddings)

    def _token_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        img = self.adapters.img_tokens.logits(hidden)
        return frozen_head_loss(hidden, img, self.language.head, labels)

    def _caption_hidden(self, layout: CaptionLayout, features: Tensor) -> Tensor:
        device = self.language.device
        embeddings = self.embed(layout.ids, layout.visual_at, features)
        hidden, _ = self.language.hidden(embeddings, layout.mask.to(device))
        return hidden.flatten(0, 1)[layout.label_at.to(device)]

    def _embed(self, ids: Tensor) -> Tensor:
        """Embed ids of both vocabularies; places without an id get the embedding of id 0."""
        ids = ids.to(self.language.device)
        frozen = self.language.embed(ids.clamp(0, self.language.vocab_size - 1))
        number = ids - self.adapters.img_tokens.first_id
        img = self.adapters.img_tokens.weight[number.clamp(min=0)].to(frozen.dtype)
        return torch.where((number >= 0)[..., None], img, frozen)
