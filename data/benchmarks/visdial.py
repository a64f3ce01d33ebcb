"""VisDial 1.0: the official JSON and a folder of its COCO images.

``data`` holds ``questions`` and ``answers`` (texts) and ``dialogs``, each with an ``image_id`` and
ten rounds that name a question and an answer by their places. Images are files whose name ends with
the number, such as ``VisualDialog_val2018_000000284024.jpg``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.benchmarks.contexts import (
    Case,
    Cases,
    ContextError,
    ContextImage,
    images_in,
    read_json,
    unusable,
)


def dialogue_text(rounds: Sequence[tuple[str, str]]) -> str:
    """Join questions and answers as the paper does: ``Q: ...?`` and ``A: ...``, a line each."""
    return "\n".join(f"Q: {q.strip().rstrip('? ')}?\nA: {a.strip()}" for q, a in rounds)


def dialogue_contexts(
    rounds: Sequence[tuple[str, str]], lengths: Sequence[int]
) -> dict[str, tuple[str, ...]]:
    """A context for each number of rounds from the first on."""
    return {
        f"{n} round{'s' if n > 1 else ''}": (dialogue_text(rounds[:n]),) for n in sorted(lengths)
    }


def read_visdial(
    dialogues: Path, images: Path, lengths: Sequence[int] = (1, 5, 10), limit: int | None = None
) -> Cases:
    """Dialogues whose image is to be made from their first rounds, in the file's order.

    Dialogues with fewer rounds than the longest context, with a round that has no answer (the
    official test split), and with a missing or unreadable image are counted.

    Raises:
        ContextError: the file is not VisDial's, or there are no images.
    """
    content = read_json(dialogues, "the dialogues of VisDial")
    questions, answers, dialogs = _parts(content, dialogues)
    paths = {_number(stem): path for stem, path in images_in(images).items()}
    skipped: Counter[str] = Counter()
    cases: list[Case] = []
    for place, dialog in enumerate(dialogs):
        if limit is not None and len(cases) >= limit:
            break
        where = f"data.dialogs[{place}] of {dialogues}"
        try:
            image_id, turns = int(dialog["image_id"]), list(dialog["dialog"])
            rounds = [
                (questions[turn["question"]], answers[turn["answer"]])
                for turn in turns
                if "answer" in turn
            ]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ContextError(f"{where} is not as in VisDial 1.0: {error!r}") from error
        if len(rounds) < max(lengths):
            skipped["too few answered rounds"] += 1
            continue
        path = paths.get(image_id)
        image = ContextImage(str(image_id), path) if path is not None else None
        reason = unusable([image])
        if reason is not None or image is None:
            skipped[reason or "image: missing"] += 1
            continue
        cases.append(Case(str(image_id), image, dialogue_contexts(rounds, lengths)))
    return Cases(cases, dict(skipped))


def _parts(content: Any, path: Path) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    data = content.get("data") if isinstance(content, dict) else None
    names = ("questions", "answers", "dialogs")
    missing = [n for n in names if not isinstance(data, dict) or not isinstance(data.get(n), list)]
    if missing or data is None:
        raise ContextError(
            f"{path} has no list data.{missing[0]}; give a visdial_1.0_*.json of VisDial 1.0"
        )
    return data["questions"], data["answers"], data["dialogs"]


def _number(stem: str) -> int:
    digits = re.search(r"(\d+)$", stem)
    return int(digits[1]) if digits else -1
