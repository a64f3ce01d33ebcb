"""BLEU and CIDEr through pycocoevalcap, with a tokenizer that needs no Java."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence


def words(text: str) -> str:
    """Lower-case words and numbers joined by spaces, punctuation left out."""
    return " ".join(re.findall(r"\w+", text.lower()))


def caption_scores(captions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU-1..4 and CIDEr of one caption against one reference for each picture.

    CIDEr weighs n-grams by their rarity in the references given, so it depends on the test set.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    if len(captions) != len(references):
        raise ValueError(f"{len(captions)} captions for {len(references)} references")
    made = {i: [words(text)] for i, text in enumerate(captions)}
    true = {i: [words(text)] for i, text in enumerate(references)}
    bleu, _ = Bleu(4).compute_score(true, made, verbose=0)
    cider, _ = Cider().compute_score(true, made)
    return {**{f"bleu_{n}": float(v) for n, v in enumerate(bleu, 1)}, "cider": float(cider)}


def word_frequency_baseline(training: Sequence[str], count: int) -> list[str]:
    """The same caption for every picture: as long as the average, of the most common words.

    A captioner that ignores the picture can do this well; one that reads it must do better.
    """
    split = [words(text).split() for text in training]
    mean = max(1, round(sum(map(len, split)) / max(1, len(split))))
    common = [word for word, _ in Counter(w for ws in split for w in ws).most_common(mean)]
    return [" ".join(common)] * count


def caption_frequency_baseline(training: Sequence[str], count: int) -> list[str]:
    """The most frequent training caption, for every picture."""
    ((text, _),) = Counter(training).most_common(1)
    return [text] * count
