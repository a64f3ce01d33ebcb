"""The parts of GILL composed: forward passes and losses of the adapters, and [IMG] states."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gill.backbones.language import LanguageModel
from gill.captioning import CaptioningMap
from gill.data_parallel import WorkerGroup, own_rows, parts
from gill.losses import (
    GenerationForm,
    contrastive_loss,
    contrastive_loss_of_part,
    frozen_head_loss,
    generation_loss,
    token_loss,
)
from gill.mapper import Mapper
from gill.packing import CaptionLayout, ImgLayout, caption_layout, img_layout
from gill.retrieval import RetrievalMaps
from gill.specs import AdapterSpec
from gill.tokens import ImgTokenEmbeddings

_IMG_TEXT = re.compile(r"\[IMG\d*\]")


def _not_latin(letter: str) -> bool:
    return letter.isalpha() and not unicodedata.name(letter, "").startswith("LATIN")


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; all 1 in the paper."""

    captioning: float = 1.0
    img_prediction: float = 1.0
    retrieval: float = 1.0
    generation: float = 1.0


@dataclass(frozen=True)
class FullBatch:
    """What a part of a batch knows of the whole, so that the parts' losses add up to the whole's.

    Attributes:
        rows: which of the whole's examples the part is. share: how much of the whole that is.
        features: ``(n, vision_dim)`` of the whole batch.
        text: unit vectors ``(n, retrieval_dim)`` of the whole batch, where a worker has several
            parts; None where the workers exchange them in the pass.
        counts: examples of each worker.
        labels: labels for each example of the whole, over those of the part.
    """

    rows: slice
    share: float
    features: Tensor
    text: Tensor | None
    counts: tuple[int, ...]
    labels: float


@dataclass(frozen=True)
class AdapterBatch:
    """Token ids of the captions, ready to lay out, and what belongs to them.

    Attributes:
        features: ``(batch, vision_dim)``, pooled vision features.
        targets: ``(batch, num_targets, target_dim)``, the generator's text-encoder output, only
            where a mapper is trained together with the adapters.
        keys: names of the examples, for reports.
        packed: whether the examples are packed in pairs; None leaves it to a random draw.
        whole: set where this is a part of a batch.
    """

    captions: list[list[int]]
    features: Tensor
    targets: Tensor | None = None
    keys: tuple[str, ...] = ()
    packed: bool | None = None
    whole: FullBatch | None = None

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

    def oddities(self, captions: Sequence[str]) -> Counter[str]:
        """How many captions are out of the ordinary, by reason; all of them are trained on.

        ``cut``: longer than the limit. ``empty``: no text. ``naming_img``: spell out an [IMG]
        token, which is read as text. ``other_scripts``: have letters that are not Latin.
        ``unknown_tokens``: have parts that the tokenizer does not know.
        """
        unknown = self.language.unknown_id
        found: Counter[str] = Counter(
            dict.fromkeys(("cut", "empty", "naming_img", "other_scripts", "unknown_tokens"), 0)
        )
        longest = self.max_caption_tokens
        for text, ids in zip(
            captions, self.language.tokenize(list(captions), sys.maxsize), strict=True
        ):
            found["cut"] += len(ids) > longest
            found["empty"] += not text.strip()
            found["naming_img"] += _IMG_TEXT.search(text) is not None
            found["other_scripts"] += not text.isascii() and any(map(_not_latin, text))
            found["unknown_tokens"] += unknown is not None and unknown in ids
        return found

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
        img_states, img_prediction = self.img_pass(batch.captions, packed)
        retrieval = self._retrieval_loss(img_states, batch)
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
            targets = batch.targets.to(conditioning.device, non_blocking=True)
            losses["l_g"] = generation_loss(conditioning, targets, form)
            total = total + weights.generation * losses["l_g"]
        return {"loss": total, **losses}, img_states

    def split(
        self, batch: AdapterBatch, packing_probability: float, accumulate: int = 1
    ) -> list[tuple[AdapterBatch, float]]:
        """This worker's parts of a batch, ``accumulate`` of them, and their shares.

        The contrastive loss joins all examples of the batch. With one part for each worker they
        exchange their text vectors inside the pass; with more, a pass without gradients makes the
        vectors of all parts first (Gao et al. 2021, arXiv 2101.06983).
        """
        workers = WorkerGroup.current()
        if workers.size * accumulate == 1:
            return [(batch, 1.0)]
        packed = bool(torch.rand(()) < packing_probability)
        counts = tuple(
            sum(
                s.stop - s.start
                for s in own_rows(len(batch), WorkerGroup(r, workers.size), accumulate)
            )
            for r in range(workers.size)
        )
        unlabelled = 0 if self._layout_bos is None else 1

        def labels(captions: list[list[int]]) -> float:
            return sum(len(ids) + 1 - unlabelled for ids in captions) / len(captions)

        text: Tensor | None = None
        if accumulate > 1:
            with torch.no_grad():
                own = [
                    self.adapters.retrieval.embed_text(self.img_pass(captions, packed)[0])
                    for rows in own_rows(len(batch), workers, accumulate)
                    if (captions := batch.captions[rows])
                ]
            width = self.adapters.spec.retrieval_dim
            text = torch.cat([*own, batch.features.new_zeros(0, width, dtype=torch.float32)])
            text = workers.all_gather(text, counts)

        def take(rows: slice, share: float) -> AdapterBatch:
            captions = batch.captions[rows]
            relative = labels(batch.captions) / labels(captions)
            return replace(
                batch,
                captions=captions,
                features=batch.features[rows],
                targets=None if batch.targets is None else batch.targets[rows],
                keys=batch.keys[rows],
                packed=packed,
                whole=FullBatch(rows, share, batch.features, text, counts, relative),
            )

        return parts(len(batch), workers, accumulate, take)

    def _retrieval_loss(self, img_states: Tensor, batch: AdapterBatch) -> Tensor:
        maps, whole = self.adapters.retrieval, batch.whole
        text, scale = maps.embed_text(img_states), maps.scale()
        if whole is None:
            return contrastive_loss(text, maps.embed_image(batch.features), scale)
        if whole.share == 0:
            text = text[:0]
        others = whole.text
        if others is None:
            others = WorkerGroup.current().all_gather(text, whole.counts)
        image = maps.embed_image(whole.features)
        return contrastive_loss_of_part(text, others, image, scale, whole.rows.start, whole.share)

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
        out: Tensor = self.adapters.captioning(features.to(self.language.device).float())
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
        flat = embeddings.flatten(0, 1).index_copy(0, visual_at.to(embeddings.device), visual)
        return flat.view_as(embeddings)

    def img_logits(self, hidden: Tensor) -> Tensor:
        """Logits of the [IMG] tokens ``(..., r)``, capped as the model caps those of its words."""
        return self.language.cap(self.adapters.img_tokens.logits(hidden))

    def _token_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        img = self.img_logits(hidden)
        if self.language.logit_cap is not None:
            return token_loss(self.language.logits(hidden), img, labels)
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
        rows = self.adapters.img_tokens.weight * self.language.embed_scale
        # Not rows[number]: on a CPU its backward adds up in whatever order its threads come, so two
        # runs would differ in the last bit, and a resumed run from one never killed.
        img = F.embedding(number.clamp(min=0), rows).to(frozen.dtype)
        return torch.where((number >= 0)[..., None], img, frozen)
