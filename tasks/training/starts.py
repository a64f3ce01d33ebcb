"""Where the training of the adapters begins, computed from the first pairs."""

from __future__ import annotations

import sys

import numpy as np
import torch

from data.shards import AlignedShards
from gill.backbones.language import LanguageModel
from gill.initialization import start_captioning, start_mapper, words_of_images
from gill.model import Adapters
from tasks.training.adapter_losses import AdapterLosses, JointMapper

CAPTIONING_PAIRS = 20_000  # that the start of W_cap is fitted to
JOINT_PAIRS = 1024  # that the start of a mapper is fitted to; the language model reads them


def start_as_prompt(
    adapters: Adapters, language: LanguageModel, prompt: str, pairs: AlignedShards
) -> None:
    """Let the visual tokens start as a text; ``{}`` in it stands for the words of the image."""
    before, slot, after = prompt.partition("{}")
    head, tail = (
        list(language.tokenizer(part, add_special_tokens=False)["input_ids"])
        for part in (before, after)
    )
    if slot and len(head) >= adapters.spec.num_visual_tokens:
        raise ValueError(
            f"adapters.initial_prompt {prompt!r} has {len(head)} tokens before {{}} and there are "
            f"{adapters.spec.num_visual_tokens} visual tokens; shorten it"
        )
    place = [language.eos_id] if slot else []
    ids = torch.tensor([*head, *place, *tail], device=language.device)
    words = None
    if slot:
        rows = pairs.first(CAPTIONING_PAIRS)
        features = torch.from_numpy(np.asarray(rows["feature"], np.float32))
        captions = [str(caption) for caption in rows["caption"]]
        tokens = language.tokenize(captions, sys.maxsize)
        known = [i for i, ids_of in enumerate(tokens) if ids_of]
        words = words_of_images(
            features[known].to(language.device),
            [tokens[i] for i in known],
            language.embedding.weight,
        )
    embeddings = language.embedding.weight[ids].float()
    start_captioning(adapters.captioning, embeddings, len(head), words)


def start_joint_mapper(
    joint: JointMapper, losses: AdapterLosses, training: AlignedShards, batch_size: int
) -> None:
    """Fit the mapper to the states that the untrained E_img gives."""
    batch = losses.batch(training.first(JOINT_PAIRS))
    model = losses.model
    states = model.all_img_states(batch.captions, batch_size).to(model.language.device)
    img = model.adapters.img_tokens.weight.detach().float()
    if batch.targets is None:
        raise ValueError("a data-dependent initialization of the mapper needs targets")
    start_mapper(joint.mapper, states, img, batch.targets.to(states.device).float())
