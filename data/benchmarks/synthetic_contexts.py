"""Stories and dialogues of the embedded world: long contexts with their truth, and no network."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

from PIL import Image

from data.benchmarks.contexts import Case, Cases, ContextImage, story_contexts
from data.benchmarks.visdial import dialogue_contexts
from data.scenes.contexts import dialogue, story
from data.scenes.grammar import Scene, Split, World
from data.scenes.painter import paint

SPLIT: Split = "test_new"  # compositions that training never shows
WORLD = World()


def told_stories(count: int) -> Cases:
    """Stories whose cast is told in the captions; the images show it too."""
    return Cases([_story_case(index, shown=False) for index in range(count)], {})


def shown_stories(count: int) -> Cases:
    """Stories whose cast is only shown: without the images nobody can know it."""
    return Cases([_story_case(index, shown=True) for index in range(count)], {})


def dialogues(count: int, rounds: Sequence[int]) -> Cases:
    """Dialogues of ten rounds, cut after some of them."""
    cases = []
    for index in range(count):
        told = dialogue(WORLD, SPLIT, index)
        name = f"dialogue-{index:06d}"
        contexts = dialogue_contexts(told.rounds, rounds)
        cases.append(Case(name, _painted(name, told.scene), contexts, _truth(told.scene)))
    return Cases(cases, {})


def _story_case(index: int, shown: bool) -> Case:
    told = story(WORLD, SPLIT, index, shown)
    name = f"{'shown' if shown else 'told'}-{index:06d}"
    images = [_painted(f"{name}-{place}", scene) for place, scene in enumerate(told.scenes, 1)]
    contexts = story_contexts(list(told.captions), images)
    return Case(name, images[-1], contexts, _truth(told.scenes[-1]))


def _painted(name: str, scene: Scene) -> ContextImage:
    out = io.BytesIO()
    Image.fromarray(paint(scene)).save(out, "PNG")
    return ContextImage(name, data=out.getvalue())


def _truth(scene: Scene) -> str:
    return json.dumps(scene.to_dict(), separators=(",", ":"))
