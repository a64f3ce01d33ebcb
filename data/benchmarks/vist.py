"""VIST: the official story-in-sequence JSON and a folder of its images.

``annotations`` holds a list for each sentence with one entry: ``story_id``, ``photo_flickr_id``,
``worker_arranged_photo_order`` and ``text``. Images are files named by their ``photo_flickr_id``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from data.benchmarks.contexts import (
    Case,
    Cases,
    ContextError,
    ContextImage,
    images_in,
    read_json,
    story_contexts,
    unusable,
)

SENTENCES = 5
_FIELDS = ("story_id", "photo_flickr_id", "worker_arranged_photo_order", "text")


def read_vist(stories: Path, images: Path, limit: int | None = None) -> Cases:
    """Stories of five sentences whose last image is to be made, in the file's order.

    Stories of another length, and those with a missing or unreadable image, are counted.

    Args:
        limit: stop after so many usable stories.

    Raises:
        ContextError: the file is not VIST's, or there are no images.
    """
    found = _sentences(read_json(stories, "the stories of VIST"), stories)
    paths = images_in(images)
    skipped: Counter[str] = Counter()
    cases: list[Case] = []
    for story, sentences in found.items():
        if limit is not None and len(cases) >= limit:
            break
        sentences.sort(key=lambda row: int(row["worker_arranged_photo_order"]))
        if len(sentences) != SENTENCES:
            skipped[f"not {SENTENCES} sentences"] += 1
            continue
        names = [str(row["photo_flickr_id"]) for row in sentences]
        sequence = [ContextImage(n, paths[n]) if n in paths else None for n in names]
        reason = unusable(sequence)
        if reason is not None:
            skipped[reason] += 1
            continue
        whole = [p for p in sequence if p is not None]
        texts = [str(row["text"]) for row in sentences]
        cases.append(Case(story, whole[-1], story_contexts(texts, whole)))
    return Cases(cases, dict(skipped))


def _sentences(content: Any, path: Path) -> dict[str, list[dict[str, Any]]]:
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise ContextError(
            f"{path} has no list `annotations`; give the story-in-sequence (SIS) JSON of VIST"
        )
    stories: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for number, entry in enumerate(content["annotations"]):
        row = entry[0] if isinstance(entry, list) and entry else entry
        missing = [f for f in _FIELDS if not isinstance(row, dict) or f not in row]
        if missing:
            raise ContextError(
                f"annotations[{number}] of {path} lacks {missing}; give the story-in-sequence "
                "(SIS) JSON of VIST, not the descriptions in isolation (DII)"
            )
        stories[str(row["story_id"])].append(row)
    return stories
