"""BLEU and CIDEr through pycocoevalcap, and a METEOR of exact words: nothing that needs Java."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence


def words(text: str) -> str:
    """Lower-case words and numbers joined by spaces, punctuation left out."""
    return " ".join(re.findall(r"\w+", text.lower()))


def caption_scores(captions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU-1..4, CIDEr and ``meteor_exact`` of one caption against one reference for each image.

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
    meteor = [meteor_exact(a, b) for a, b in zip(captions, references, strict=True)]
    return {
        **{f"bleu_{n}": float(v) for n, v in enumerate(bleu, 1)},
        "cider": float(cider),
        "meteor_exact": sum(meteor) / max(1, len(meteor)),
    }


def meteor_exact(caption: str, reference: str) -> float:
    """METEOR with exact matches only (Banerjee and Lavie 2005), in [0, 1].

    10 P R / (R + 9 P), less a penalty of half the cubed share of chunks: runs of matched words in
    the same order, found longest first. The published METEOR also matches stems, synonyms and
    paraphrases, with a Java program and its tables, so its figures are higher.
    """
    made, true = words(caption).split(), words(reference).split()
    free, open_places = [True] * len(made), [True] * len(true)
    matches, chunks = 0, 0
    while run := _longest_run(made, true, free, open_places):
        i, j, length = run
        free[i : i + length] = open_places[j : j + length] = [False] * length
        matches, chunks = matches + length, chunks + 1
    if not matches:
        return 0.0
    precision, recall = matches / len(made), matches / len(true)
    mean = 10 * precision * recall / (recall + 9 * precision)
    return mean * (1 - 0.5 * (chunks / matches) ** 3)


def _longest_run(
    a: Sequence[str], b: Sequence[str], free_a: Sequence[bool], free_b: Sequence[bool]
) -> tuple[int, int, int] | None:
    best: tuple[int, int, int] | None = None
    for i in range(len(a)):
        for j in range(len(b)):
            n = 0
            while (
                i + n < len(a)
                and j + n < len(b)
                and free_a[i + n]
                and free_b[j + n]
                and a[i + n] == b[j + n]
            ):
                n += 1
            if n and (best is None or n > best[2]):
                best = (i, j, n)
    return best


def word_frequency_baseline(training: Sequence[str], count: int) -> list[str]:
    """The same caption for every image: as long as the average, of the most common words.

    A captioner that ignores the image can do this well; one that reads it must do better.
    """
    split = [words(text).split() for text in training]
    mean = max(1, round(sum(map(len, split)) / max(1, len(split))))
    common = [word for word, _ in Counter(w for ws in split for w in ws).most_common(mean)]
    return [" ".join(common)] * count


def caption_frequency_baseline(training: Sequence[str], count: int) -> list[str]:
    """The most frequent training caption, for every image."""
    ((text, _),) = Counter(training).most_common(1)
    return [text] * count
