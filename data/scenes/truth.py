"""What a caption says about a scene, as class numbers: for learning to read captions and images."""

from __future__ import annotations

import re
from collections.abc import Sequence

from data.scenes.captions import ground_forms
from data.scenes.grammar import GROUNDS, PLACES, SIZES, Group, Scene
from data.scenes.objects import BY_NAME, THINGS

NUMBER_OF = {thing.name: i + 1 for i, thing in enumerate(THINGS)}  # 0: there is none
SIZE_NUMBERS = {size: i for i, size in enumerate(SIZES)}
ARRANGEMENTS = (
    "anywhere", *PLACES, "several", "beside", "stacked", "two kinds",
    "one over two", "one under two", "three kinds",
)  # fmt: skip
UNSAID = -1
GROUPS = 3
SIZES_OF_COLUMNS = {
    "objects": len(THINGS) + 1,
    "numbers": 3,
    "sizes": len(SIZES),
    "arrangements": len(ARRANGEMENTS),
    "grounds": len(GROUNDS),
}


def arrangement(scene: Scene) -> str:
    """How the groups stand, as far as the caption says."""
    if len(scene.groups) == 1:
        return "several" if scene.groups[0].number > 1 else scene.place or "anywhere"
    if len(scene.groups) == 2:
        if not scene.relation:
            return "two kinds"
        return "beside" if scene.relation in ("left of", "right of") else "stacked"
    return {"above": "one over two", "below": "one under two", "": "three kinds"}[scene.relation]


def ordered_groups(scene: Scene, order: Sequence[int]) -> list[Group]:
    """Groups from left to right or from top to bottom, where that is said; else in a given order.

    Of three kinds the one that stands alone comes first.

    Args:
        order: numbers of the groups, in the order in which a caption names them.
    """
    named = [scene.groups[i] for i in order]
    if not scene.relation:
        return named
    first, *others = scene.groups
    if len(others) == 1:
        return [first, *others] if scene.relation in ("left of", "above") else [*others, first]
    return [first, *(group for group in named if group != first)]


def columns(scene: Scene, turn: int = 0) -> list[int]:
    """Object, number and size of each of three groups, then arrangement and ground.

    Args:
        turn: where a caption leaves the order of groups open, which of them comes first.
    """
    count = len(scene.groups)
    return _columns(ordered_groups(scene, [(turn + i) % count for i in range(count)]), scene)


def columns_of_text(scene: Scene, text: str) -> list[int]:
    """The same as far as a text, such as a caption that was cut, says it.

    Groups whose order is open come as the text names them. If the text ends before all are named,
    the rest, what else there is, and how they stand are not said.
    """
    at = [_position(group, text) for group in scene.groups]
    seen = [i for i in sorted(range(len(at)), key=lambda i: at[i]) if at[i] >= 0]
    if len(seen) == len(at):
        found = _columns(ordered_groups(scene, seen), scene)
    else:
        said = _columns([scene.groups[i] for i in seen], scene)
        found = [*said[: 3 * len(seen)], *[UNSAID] * (3 * (GROUPS - len(seen)) + 1), said[-1]]
    if not any(re.search(rf"\b{words}\b", text) for words in ground_forms(scene.ground)):
        found[-1] = UNSAID
    return found


def _position(group: Group, text: str) -> int:
    thing = BY_NAME[group.name]
    noun = thing.name if group.number == 1 else thing.plural
    found = re.search(rf"\b{noun}\b", text)
    return found.start() if found else -1


def _columns(groups: Sequence[Group], scene: Scene) -> list[int]:
    found: list[int] = []
    for group in groups:
        found += [NUMBER_OF[group.name], group.number - 1, SIZE_NUMBERS[group.size]]
    for _ in range(GROUPS - len(groups)):
        found += [0, UNSAID, UNSAID]
    return [*found, ARRANGEMENTS.index(arrangement(scene)), GROUNDS.index(scene.ground)]
