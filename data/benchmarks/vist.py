"""VIST: the official story-in-sequence JSON and a folder of its images.

``annotations`` holds a list for each sentence with one entry: ``story_id``, ``photo_flickr_id``,
``worker_arranged_photo_order`` and ``text``. Images are files named by their ``photo_flickr_id``.
"""

from __future__ import annotations

from collections import defaultdict
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
    story_contexts,
    usable_image,
)
from data.benchmarks.skips import Skips, UnusableError, number_of, text_of

SENTENCES = 5
_FIELDS = ("story_id", "photo_flickr_id", "worker_arranged_photo_order", "text")
Sentence = Mapping[str, Any]


def read_vist(stories: Path, images: Path, limit: int | None = None) -> Cases:
    """Stories of five sentences whose last image is to be made, in the file's order.

    Counted and left out are stories of another length, with a blank sentence, an order that has a
    hole, or an image that is missing or cannot be read, and entries that belong to no story.

    Args:
        limit: stop after so many usable stories.

    Raises:
        ContextError: the file is not VIST's, or there are no images.
        SystematicFaultError: too many stories raise what nobody expects.
    """
    skips = Skips("stories")
    found = _sentences(read_json(stories, "the stories of VIST"), stories, skips)
    paths = images_in(images)
    cases: list[Case] = []
    for story, sentences in found.items():
        if limit is not None and len(cases) >= limit:
            break
        place = f"story {story} of {stories}"
        case = skips.made(partial(_case, story, sentences, paths), place)
        if case is not None:
            cases.append(case)
    return Cases(cases, dict(skips.counts), skips.samples)


def _case(story: str, sentences: Sequence[Sentence], paths: Mapping[str, Path]) -> Case:
    missing = [field for row in sentences for field in _FIELDS if field not in row]
    if missing:
        raise UnusableError("incomplete sentence", missing)
    if len(sentences) != SENTENCES:
        raise UnusableError(f"not {SENTENCES} sentences", len(sentences))
    orders = [number_of(row["worker_arranged_photo_order"], "order") for row in sentences]
    if sorted(orders) != list(range(min(orders), min(orders) + SENTENCES)):
        raise UnusableError("orders with a hole", sorted(orders))
    rows = [row for _, row in sorted(zip(orders, sentences, strict=True), key=lambda x: x[0])]
    texts = [text_of(row["text"], "sentence") for row in rows]
    names = [str(row["photo_flickr_id"]) for row in rows]
    images = [usable_image(name, paths.get(name)) for name in names]
    return Case(story, images[-1], story_contexts(texts, images))


def _sentences(content: Any, path: Path, skips: Skips) -> dict[str, list[Sentence]]:
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise ContextError(
            f"{path} has no list `annotations`; give the story-in-sequence (SIS) JSON of VIST"
        )
    stories: defaultdict[str, list[Sentence]] = defaultdict(list)
    lacking: list[str] = []
    for number, entry in enumerate(content["annotations"]):
        row = entry[0] if isinstance(entry, list) and entry else entry
        lacking = [f for f in _FIELDS if not isinstance(row, dict) or f not in row]
        named = skips.made(partial(_story_of, row), f"annotations[{number}] of {path}")
        if named is not None:
            stories[named].append(row)
    if not stories:
        raise ContextError(
            f"no entry of annotations of {path} names a story; the last lacks {lacking}; give the "
            "story-in-sequence (SIS) JSON of VIST, not the descriptions in isolation (DII)"
        )
    return stories


def _story_of(row: Any) -> str:
    story = row.get("story_id") if isinstance(row, dict) else None
    if type(story) not in {str, int} or not str(story).strip():
        raise UnusableError("no story", repr(row)[:300])
    return str(story)
