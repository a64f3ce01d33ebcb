"""Figures of captions and addresses, counted as they are read."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

_MARKS = (1, 5, 25, 50, 75, 95, 99)  # per cent
_MOST_HOSTS = 30


@dataclass
class CaptionCounts:
    """Counts over the captions of a split: words, scripts, hosts.

    Languages are told apart by their scripts alone: every caption counts for the script that most
    of its letters are of, ``none`` without letters.
    """

    words: list[int] = field(default_factory=list)
    scripts: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)

    def add(self, captions: Iterable[str], origins: Iterable[str]) -> None:
        """Count some rows."""
        for caption in captions:
            self.words.append(len(caption.split()))
            self.scripts[script_of(caption)] += 1
        self.hosts.update(host for origin in origins if (host := _host(origin)))

    def described(self) -> dict[str, Any]:
        """The counts as JSON holds them."""
        return {
            "words": spread(np.array(self.words)),
            "scripts": dict(self.scripts.most_common()),
            "hosts": dict(self.hosts.most_common(_MOST_HOSTS)),
        }


def spread(values: npt.NDArray[Any]) -> dict[str, float]:
    """Mean and percentiles of some values; empty for none."""
    if not len(values):
        return {}
    marks = np.percentile(values, _MARKS)
    found = {f"p{mark}": round(float(v), 4) for mark, v in zip(_MARKS, marks, strict=True)}
    return {"mean": round(float(values.mean()), 4), **found}


def histogram(values: npt.NDArray[Any], width: float) -> dict[str, int]:
    """How many values there are from each bound to the next, by the lower bound; none left out."""
    bounds, counts = np.unique(np.floor(values / width), return_counts=True)
    return {f"{b * width + 0.0:.2f}": int(c) for b, c in zip(bounds, counts, strict=True)}


def script_of(text: str) -> str:
    """The script of most letters of a text, in Unicode's words, such as ``LATIN``."""
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text)) else "none"
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    return scripts.most_common(1)[0][0] if scripts else "none"


@lru_cache(1 << 16)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0].partition("-")[0]


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""
