"""VisDial 1.0: the official JSON and a folder of its COCO images.

``data`` holds ``questions`` and ``answers`` (texts) and ``dialogs``, each with an ``image_id`` and
ten rounds that name a question and an answer by their places. Images are files whose name ends with
the number, such as ``VisualDialog_val2018_000000284024.jpg``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data.benchmarks.contexts import (
    Case,
    Cases,
    ContextError,
    images_in,
    read_json,
    usable_image,
)
from data.benchmarks.skips import Skips, UnusableError, number_of, text_of


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

    Counted and left out are dialogues with fewer rounds than the longest context before the first
    that has no answer (the official test split), with a blank question or answer or the number of
    none in those rounds, and with a missing or unreadable image.

    Raises:
        ContextError: the file is not VisDial's, or there are no images.
        SystematicFaultError: too many dialogues raise what nobody expects.
    """
    content = read_json(dialogues, "the dialogues of VisDial")
    questions, answers, dialogs = _parts(content, dialogues)
    numbered = {_number(stem): path for stem, path in images_in(images).items()}
    paths = {number: path for number, path in numbered.items() if number is not None}
    skips = Skips("dialogues")
    cases: list[Case] = []
    for place, dialog in enumerate(dialogs):
        if limit is not None and len(cases) >= limit:
            break
        where = f"data.dialogs[{place}] of {dialogues}"
        case = skips.made(partial(_case, dialog, questions, answers, paths, lengths), where)
        if case is not None:
            cases.append(case)
    return Cases(cases, dict(skips.counts), skips.samples)


def _case(
    dialog: Any,
    questions: Sequence[Any],
    answers: Sequence[Any],
    paths: Mapping[int, Path],
    lengths: Sequence[int],
) -> Case:
    if not isinstance(dialog, dict) or not isinstance(dialog.get("dialog"), list):
        raise UnusableError("no dialogue", repr(dialog)[:300])
    rounds: list[tuple[str, str]] = []
    for turn in dialog["dialog"][: max(lengths)]:
        if not isinstance(turn, dict):
            raise UnusableError("no round", repr(turn)[:300])
        if turn.get("answer") is None:
            break  # what follows a hole is not joined to what is before it
        asked = _chosen(questions, turn.get("question"), "question")
        rounds.append((asked, _chosen(answers, turn["answer"], "answer")))
    if len(rounds) < max(lengths):
        raise UnusableError("too few answered rounds", len(rounds))
    number = number_of(dialog.get("image_id"), "image_id")
    image = usable_image(str(number), paths.get(number))
    return Case(str(number), image, dialogue_contexts(rounds, lengths))


def _chosen(texts: Sequence[Any], number: Any, what: str) -> str:
    place = number_of(number, f"number of a {what}")
    if place >= len(texts):
        raise UnusableError(f"bad number of a {what}", f"{place} of {len(texts)}")
    return text_of(texts[place], what)


def _parts(content: Any, path: Path) -> tuple[list[Any], list[Any], list[Any]]:
    data = content.get("data") if isinstance(content, dict) else None
    names = ("questions", "answers", "dialogs")
    missing = [n for n in names if not isinstance(data, dict) or not isinstance(data.get(n), list)]
    if missing or data is None:
        raise ContextError(
            f"{path} has no list data.{missing[0]}; give a visdial_1.0_*.json of VisDial 1.0"
        )
    return data["questions"], data["answers"], data["dialogs"]


def _number(stem: str) -> int | None:
    digits = re.search(r"([0-9]+)$", stem)
    return int(digits[1]) if digits else None
