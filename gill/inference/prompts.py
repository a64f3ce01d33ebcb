"""Prompts of images and text, and how they become input embeddings of the language model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from gill.backbones.vision import VisionEncoder
from gill.model import GillModel
from gill.packing import VISUAL, prompt_layout


@dataclass(frozen=True)
class ImgTokens:
    """In a prompt: the r [IMG] tokens, where an earlier answer showed an image."""


Item = str | Image.Image | Tensor | ImgTokens
"""Text, an image, an image's pooled vision feature ``(vision_dim,)``, or [IMG] tokens."""

Prompt = Sequence[Item] | Item
"""Items in reading order; one that is alone stands for itself."""


class PromptError(ValueError):
    """A prompt that cannot be read as it is; says which item and what to do."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A piece that is never cut apart: a token of text, an image, or r [IMG] tokens.

    Attributes:
        ids: of both vocabularies; ``VISUAL`` for each visual token.
        feature: ``(vision_dim,)`` of an image.
    """

    ids: list[int]
    feature: Tensor | None = None


class PromptReader:
    """Turns prompts into sequences of the language model.

    Args:
        vision: encodes images; not needed where prompts hold features only.
    """

    def __init__(self, model: GillModel, vision: VisionEncoder | None = None) -> None:
        self.model, self.vision = model, vision

    def read(self, prompts: Sequence[Prompt]) -> list[list[Unit]]:
        """The units of prompts; all their images go through the vision encoder together.

        Raises:
            PromptError: there is no prompt, or an item is blank, misshapen or of another type.
        """
        if not prompts:
            raise PromptError("there is no prompt to read")
        rows = [items_of(prompt) for prompt in prompts]
        images = [item for row in rows for item in row if isinstance(item, Image.Image)]
        features = iter(self._features(images))
        read = []
        for number, row in enumerate(rows):
            units: list[Unit] = []
            for place, item in enumerate(row):
                where = f"item {place} of prompt {number}"
                units += self._units(
                    next(features) if isinstance(item, Image.Image) else item, where
                )
            read.append(units)
        return read

    def _units(self, item: Item, where: str) -> list[Unit]:
        language, spec = self.model.language, self.model.adapters.spec
        if isinstance(item, str):
            if not item.strip():
                raise PromptError(f"{where} is a blank text; leave it out")
            ids = language.tokenize([item], sys.maxsize)[0]
            return [Unit([i]) for i in ids[1 if language.prepends_bos else 0 :]]
        if isinstance(item, ImgTokens):
            first = self.model.adapters.img_tokens.first_id
            return [Unit(list(range(first, first + spec.num_img_tokens)))]
        if not isinstance(item, Tensor):
            raise PromptError(
                f"{where} is a {type(item).__name__}; give text, a PIL image, a vision feature "
                "or ImgTokens()"
            )
        if item.shape != (spec.vision_dim,):
            raise PromptError(
                f"{where} is a tensor of shape {tuple(item.shape)}; a vision feature has "
                f"({spec.vision_dim},)"
            )
        return [Unit([VISUAL] * spec.num_visual_tokens, item.float().cpu())]

    @torch.no_grad()
    def _features(self, images: Sequence[Image.Image], batch_size: int = 64) -> list[Tensor]:
        if images and self.vision is None:
            raise PromptError("there is no vision encoder to read images; give their features")
        features: list[Tensor] = []
        for start in range(0, len(images), batch_size):
            part = [image.convert("RGB") for image in images[start : start + batch_size]]
            assert self.vision is not None
            features += self.vision.pooled(self.vision.prepare(part)).float().cpu()
        return features

    def fit(
        self, units: list[Unit], number: int, room: int, truncate_left: bool, keep: int = 1
    ) -> list[Unit]:
        """Put BOS where training had it, and see that the sequence is short enough.

        BOS comes before the first text, after images that lead; a prompt of images alone ends
        with it, since captions were learnt after it.

        Args:
            number: of the prompt, for the message.
            room: positions that must stay free for the answer.
            truncate_left: drop units from the left instead of refusing.
            keep: units at the end that are never dropped.

        Raises:
            PromptError: the prompt is empty or too long.
        """
        if not units:
            raise PromptError(f"prompt {number} is empty; give at least one image or text")
        language = self.model.language
        bos = (
            [Unit([language.bos_id])]
            if language.prepends_bos and language.bos_id is not None
            else []
        )
        length = len(bos) + sum(len(unit.ids) for unit in units)
        over = 0 if language.max_positions is None else length + room - language.max_positions
        cut = 0
        while truncate_left and over > 0 and cut < len(units) - keep:
            over -= len(units[cut].ids)
            cut += 1
        if over > 0:
            raise PromptError(
                f"prompt {number} takes {length} positions and its answer {room} more; "
                f"{language.name} has {language.max_positions}. Shorten it, lower max_new_tokens, "
                "or ask for truncate_left, which drops its beginning"
            )
        units = units[cut:]
        at = next((i for i, unit in enumerate(units) if unit.feature is None), len(units))
        return [*units[:at], *bos, *units[at:]]

    def embed(self, rows: Sequence[Sequence[Unit]]) -> tuple[Tensor, Tensor]:
        """Input embeddings ``(rows, length, llm_dim)`` and their mask, padded on the left."""
        layout = prompt_layout([[i for unit in row for i in unit.ids] for row in rows])
        seen = [unit.feature for row in rows for unit in row if unit.feature is not None]
        features = torch.stack(seen) if seen else torch.empty(0)
        embeddings = self.model.embed(layout.ids, layout.visual_at, features)
        return embeddings, layout.mask.to(embeddings.device)

    def prepare(
        self, prompts: Sequence[Prompt], room: int, truncate_left: bool = False
    ) -> tuple[Tensor, Tensor]:
        """``read``, ``fit`` and ``embed`` in one."""
        return self.embed(
            [self.fit(u, n, room, truncate_left) for n, u in enumerate(self.read(prompts))]
        )


def items_of(prompt: Prompt) -> list[Item]:
    """The items of a prompt."""
    return [prompt] if isinstance(prompt, str | Image.Image | Tensor | ImgTokens) else list(prompt)
