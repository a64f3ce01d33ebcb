"""What a caption says about a scene, as class numbers: for learning to read captions and images."""

from __future__ import annotations

from data.scenes.grammar import GROUNDS, PLACES, SIZES, Group, Scene
from data.scenes.objects import THINGS

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


def ordered_groups(scene: Scene) -> list[Group]:
    """Groups from left to right or from top to bottom, where that is said; else by kind.

    Of three kinds the one that stands alone comes first.
    """
    groups = list(scene.groups)
    if len(groups) == 2 and scene.relation:
        return groups if scene.relation in ("left of", "above") else groups[::-1]
    first = groups[:1] if scene.relation else []
    rest = groups[len(first) :]
    return first + sorted(rest, key=lambda g: NUMBER_OF[g.name])


def columns(scene: Scene) -> list[int]:
    """Object, number and size of each of three groups, then arrangement and ground."""
    found: list[int] = []
    groups = ordered_groups(scene)
    for group in groups:
        found += [NUMBER_OF[group.name], group.number - 1, SIZE_NUMBERS[group.size]]
    for _ in range(GROUPS - len(groups)):
        found += [0, UNSAID, UNSAID]
    return [*found, ARRANGEMENTS.index(arrangement(scene)), GROUNDS.index(scene.ground)]
