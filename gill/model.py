"""The parts of GILL composed: forward passes and losses of the adapters, and [IMG] states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gill.backbones.language import LanguageModel
from gill.batches import AdapterBatch, split_batch
from gill.captioning import CaptioningMap
from gill.data_parallel import WorkerGroup
from gill.devices import sent
from gill.losses import (
    GenerationForm,
    ImgPredictionForm,
    LossWeights,
    contrastive_loss,
    contrastive_loss_of_part,
    frozen_head_loss,
    generation_loss,
    token_loss,
)
from gill.mapper import Mapper
from gill.packing import (
    CaptionLayout,
    ImgLayout,
    caption_and_img_labels,
    caption_layout,
    count_caption_and_img_labels,
    img_layout,
)
from gill.retrieval import RetrievalMaps
from gill.specs import AdapterSpec
from gill.tokens import ImgTokenEmbeddings


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

    def for_states(self) -> StateAdapters:
        """The adapters that stored [IMG] states need."""
        return StateAdapters(self.retrieval, self.img_tokens.weight)


@dataclass(frozen=True, eq=False)
class StateAdapters:
    """The adapters that read [IMG] states; they need no language model.

    Attributes:
        img_embeddings: E_img, ``(r, llm_dim)``.
    """

    retrieval: RetrievalMaps
    img_embeddings: Tensor


class GillModel:
    """The frozen language model and the adapters, used together.

    The language model is shared and read only; nothing here registers or changes its parameters.

    Raises:
        ValueError: two packed captions would not fit the language model's positions.
    """

    def __init__(
        self, language: LanguageModel, adapters: Adapters, max_caption_tokens: int = 24
    ) -> None:
        self.language, self.adapters = language, adapters
        self.max_caption_tokens = max_caption_tokens
        self._layout_bos = language.bos_id if language.prepends_bos else None
        spec = adapters.spec
        longest = 2 * (max_caption_tokens + max(spec.num_visual_tokens + 1, spec.num_img_tokens))
        if max_caption_tokens < 2:
            raise ValueError(f"captions of {max_caption_tokens} tokens hold a BOS and no text")
        if language.max_positions is not None and longest > language.max_positions:
            raise ValueError(
                f"max_tokens leaves captions of {max_caption_tokens} tokens; two of them packed "
                f"take {longest} positions, and {language.name} takes {language.max_positions}. "
                "Lower max_tokens"
            )

    def tokenize(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids of captions, cut so that the r [IMG] tokens always fit.

        A caption without text becomes end-of-text (after the BOS where the model has one), so that
        something predicts [IMG0] also where the second of a pair loses its BOS.
        """
        tokens = self.language.tokenize(list(captions), self.max_caption_tokens)
        start = [] if self._layout_bos is None else [self._layout_bos]
        end = [*start, self.language.eos_id]
        return [
            ids if text.strip() and len(ids) > len(start) else end
            for text, ids in zip(captions, tokens, strict=True)
        ]

    def losses(
        self,
        batch: AdapterBatch,
        weights: LossWeights,
        packing_probability: float,
        mapper: Mapper | None = None,
        form: GenerationForm = "norm",
    ) -> dict[str, Tensor]:
        """l_c, l_p and l_r of a batch, l_g too with a mapper, and their weighted sum ``loss``.

        One random draw decides whether the whole batch is packed in pairs. One [IMG] pass serves
        l_p, l_r and l_g.
        """
        return self.losses_and_states(batch, weights, packing_probability, mapper, form)[0]

    def losses_and_states(
        self,
        batch: AdapterBatch,
        weights: LossWeights,
        packing_probability: float,
        mapper: Mapper | None = None,
        form: GenerationForm = "norm",
    ) -> tuple[dict[str, Tensor], Tensor]:
        """``losses``, and the [IMG] states ``(batch, r, llm_dim)`` that they come from."""
        packed = batch.packed
        if packed is None:
            packed = bool(torch.rand(()) < packing_probability)
        captioning = self.captioning_loss(batch, packed)
        if batch.whole is not None:
            captioning = captioning / batch.whole.labels
        prediction_form = weights.img_prediction_form
        img_states, img_prediction = self.img_pass(batch.captions, packed, prediction_form)
        if batch.whole is not None and prediction_form == "released":
            img_prediction = img_prediction / batch.whole.img_labels
        retrieval = self._retrieval_loss(img_states, batch, weights.logit_scale_cap)
        total = (
            weights.captioning_weight * captioning
            + weights.img_prediction_weight * img_prediction
            + weights.retrieval_weight * retrieval
        )
        losses = {"l_c": captioning, "l_p": img_prediction, "l_r": retrieval}
        if mapper is not None:
            if batch.targets is None:
                raise ValueError("a mapper is to be trained and the batch has no targets")
            conditioning = mapper(img_states, self.adapters.img_tokens.weight)
            targets = sent(batch.targets, conditioning.device)
            losses["l_g"] = generation_loss(conditioning, targets, form)
            total = total + weights.generation_weight * losses["l_g"]
        return {"loss": total, **losses}, img_states

    def split(
        self, batch: AdapterBatch, packing_probability: float, accumulate: int = 1
    ) -> list[tuple[AdapterBatch, float]]:
        """This worker's parts of a batch, ``accumulate`` of them, and their fractions of it."""
        if WorkerGroup.current().size * accumulate == 1:
            return [(batch, 1.0)]
        packed = bool(torch.rand(()) < packing_probability)

        @torch.no_grad()
        def embed_text(parts: Sequence[list[list[int]]]) -> Tensor:
            maps = self.adapters.retrieval
            width = self.adapters.spec.retrieval_dim
            own = [maps.embed_text(self.img_pass(captions, packed)[0]) for captions in parts]
            return torch.cat([*own, batch.features.new_zeros(0, width, dtype=torch.float32)])

        unlabelled = 0 if self._layout_bos is None else 1
        count = partial(
            count_caption_and_img_labels,
            single=len(self.adapters.img_tokens) == 1,
            packed=packed,
            unlabelled=unlabelled,
        )
        return split_batch(batch, packed, accumulate, unlabelled, embed_text, count)

    def _retrieval_loss(self, img_states: Tensor, batch: AdapterBatch, cap: float) -> Tensor:
        maps, whole = self.adapters.retrieval, batch.whole
        text, scale = maps.embed_text(img_states), maps.scale(cap)
        if whole is None:
            return contrastive_loss(text, maps.embed_image(batch.features), scale)
        if whole.fraction == 0:
            text = text[:0]
        others = whole.text
        if others is None:
            others = WorkerGroup.current().all_gather(text, whole.counts)
        image = maps.embed_image(whole.features)
        return contrastive_loss_of_part(
            text, others, image, scale, whole.rows.start, whole.fraction
        )

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
        return self._token_loss(hidden, sent(layout.labels, hidden.device))

    def img_pass(
        self, captions: list[list[int]], packed: bool, form: ImgPredictionForm = "paper"
    ) -> tuple[Tensor, Tensor]:
        """[IMG] states ``(batch, r, llm_dim)`` with gradients to E_img, and l_p.

        The prefix (all before the first [IMG] token) runs without autograd: nothing trainable
        comes before it, so its keys and values are constants. The [IMG] positions then attend to
        its cache. This equals one pass over the whole sequence, which is made for models whose
        cache does not serve that (``LanguageModel.abilities``).
        """
        layout = img_layout(
            captions,
            len(self.adapters.img_tokens),
            self.language.vocab_size,
            self._layout_bos,
            packed,
        )
        device = self.language.device
        prefix_mask = sent(layout.prefix_mask, device)
        mask = torch.cat([prefix_mask, sent(layout.mask, device)], dim=1)
        if self.language.abilities.cached_training:
            with torch.no_grad():
                before, cache = self.language.hidden(
                    self._embed(layout.prefix), prefix_mask, use_cache=True
                )
            after, _ = self.language.hidden(self._embed(layout.ids), mask, past=cache)
        else:
            ids = torch.cat([layout.prefix, layout.ids], dim=1)
            whole, _ = self.language.hidden(self._embed(ids), mask)
            before, after = whole.split([layout.prefix.shape[1], layout.ids.shape[1]], dim=1)
        states = after.flatten(0, 1)[sent(layout.state_at, device)]
        if form == "released":
            at, labels = caption_and_img_labels(layout, self.adapters.img_tokens.first_id)
            read = torch.cat([before, after], dim=1).flatten(0, 1)[sent(at, device)]
            return states.float(), self._token_loss(read, sent(labels, device))
        hidden = torch.cat([before, after], dim=1).flatten(0, 1)[sent(layout.before_at, device)]
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
        mask = sent(torch.cat([layout.prefix_mask, layout.mask], dim=1), self.language.device)
        hidden, _ = self.language.hidden(self._embed(ids), mask)
        return hidden[:, layout.prefix.shape[1] :].float()

    def all_img_states(self, captions: list[list[int]], batch_size: int) -> Tensor:
        """``img_states`` of many captions, in batches of similar length, on the CPU."""
        order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
        states = torch.empty(len(captions), len(self.adapters.img_tokens), self.language.dim)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            states[rows] = self.img_states([captions[i] for i in rows]).cpu()
        return states

    def visual_embeddings(self, features: Tensor) -> Tensor:
        """W_cap: input embeddings ``(batch, k, llm_dim)`` of pooled features."""
        out: Tensor = self.adapters.captioning(sent(features, self.language.device).float())
        return out * self.language.embed_scale

    def embed(self, ids: Tensor, visual_at: Tensor, features: Tensor) -> Tensor:
        """Input embeddings ``(rows, length, llm_dim)`` of ids and images that are laid out.

        Args:
            ids: ``(rows, length)``, of both vocabularies or a mark of ``gill.packing``.
            visual_at: ``(images * k,)`` flat positions that get the visual tokens, in order.
            features: ``(images, vision_dim)``.
        """
        embeddings = self._embed(ids)
        if not len(features):
            return embeddings
        visual = self.visual_embeddings(features).flatten(0, 1).to(embeddings.dtype)
        flat = embeddings.flatten(0, 1).index_copy(0, sent(visual_at, embeddings.device), visual)
        return flat.view_as(embeddings)

    def img_logits(self, hidden: Tensor) -> Tensor:
        """Logits of the [IMG] tokens ``(..., r)``, capped as the model caps those of its words."""
        scaled = self.language.before_head(hidden)
        return self.language.cap(self.adapters.img_tokens.logits(scaled))

    def _token_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        img = self.img_logits(hidden)
        if self.language.logit_cap is not None:
            return token_loss(self.language.logits(hidden), img, labels)
        return frozen_head_loss(self.language.before_head(hidden), img, self.language.head, labels)

    def _caption_hidden(self, layout: CaptionLayout, features: Tensor) -> Tensor:
        device = self.language.device
        embeddings = self.embed(layout.ids, layout.visual_at, features)
        hidden, _ = self.language.hidden(embeddings, sent(layout.mask, device))
        return hidden.flatten(0, 1)[sent(layout.label_at, device)]

    def _embed(self, ids: Tensor) -> Tensor:
        """Embed ids of both vocabularies; places without an id get the embedding of id 0."""
        ids = sent(ids, self.language.device)
        frozen = self.language.embed(ids.clamp(0, self.language.vocab_size - 1))
        number = ids - self.adapters.img_tokens.first_id
        rows = self.adapters.img_tokens.weight * self.language.embed_scale
        # Not rows[number]: on a CPU its backward adds up in whatever order its threads come, so two
        # runs would differ in the last bit, and a resumed run from one never killed.
        img = F.embedding(number.clamp(min=0), rows).to(frozen.dtype)
        return torch.where((number >= 0)[..., None], img, frozen)
