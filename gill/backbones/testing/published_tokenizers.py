"""Tokenizers for stand-ins, made of what is installed: CLIP's own, and one with OPT's layout.

open_clip ships CLIP's byte-pair vocabulary. OPT's is on the hub alone; its stand-in is trained on
the English words of CLIP's, the more frequent the earlier, and takes about as many tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

OPT_WORDS = 50_265  # of OPT's 50,272 rows; the others are not used
OPT_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3, as published
_MOST_FREQUENT = 20_000  # times that the most frequent word is read; the n-th so many times / n


def clip_tokenizer() -> Any:
    """CLIP's tokenizer as Stable Diffusion 1 has it: 49,408 ids, texts of 77."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    shipped = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    merges = sorted(shipped.bpe_ranks, key=shipped.bpe_ranks.__getitem__)
    return CLIPTokenizer(
        vocab={names.get(token, token): number for token, number in shipped.encoder.items()},
        merges=merges,
        model_max_length=77,
    )


def opt_tokenizer(size: int = OPT_WORDS) -> Any:
    """A byte-level BPE with OPT's special tokens; ``</s>`` begins each text, as OPT's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=1,
        special_tokens=list(OPT_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_text(), trainer)
    core.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", OPT_SPECIAL.index("</s>"))]
    )
    end, padding = OPT_SPECIAL[2], OPT_SPECIAL[1]
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=end, eos_token=end, unk_token=end, pad_token=padding
    )


def _text() -> Iterator[str]:
    from open_clip.tokenizer import SimpleTokenizer

    ends = "</w>"
    tokens = (t.removesuffix(ends) for t in SimpleTokenizer().encoder if t.endswith(ends))
    for rank, word in enumerate((t for t in tokens if t.isascii() and t.isalpha()), 1):
        yield f" {word}" * max(1, _MOST_FREQUENT // rank)
        yield word
