"""Scenes that differ from another in one factor only: hard candidates for retrieval."""

from __future__ import annotations

from dataclasses import replace

from data.scenes.grammar import CELLS, GROUNDS, SIZES, Group, Scene, World
from data.scenes.objects import THINGS
from data.scenes.randomness import Draws

FACTORS = ("object", "number", "size", "relation", "ground")
MIRRORED = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def contrast(scene: Scene, factor: str, world: World, draws: Draws) -> Scene | None:
    """The scene with another object, a smaller number or size, a mirrored relation or a new ground.

    Returns:
        A scene that can be painted, or None where the factor cannot be changed: a single thing has
        no smaller number, a small one no smaller size.
    """
    if factor == "ground":
        others = [g for g in GROUNDS if g != scene.ground]
        return replace(scene, ground=draws.choice(others))
    if factor == "relation":
        return _mirrored(scene) if scene.relation else None
    at = [i for i, group in enumerate(scene.groups) if _changeable(group, factor)]
    if not at:
        return None
    which = draws.choice(at)
    group = scene.groups[which]
    if factor == "object":
        taken = {g.name for g in scene.groups}
        names = [t.name for t in THINGS[: world.objects] if t.name not in taken]
        changed = replace(group, name=draws.choice(names))
    elif factor == "number":
        changed = replace(group, number=group.number - 1, places=group.places[:-1])
    else:
        changed = replace(group, size="small")
    groups = tuple(changed if i == which else g for i, g in enumerate(scene.groups))
    return replace(scene, groups=groups)


def _changeable(group: Group, factor: str) -> bool:
    if factor == "number":
        return group.number > 1
    return factor == "object" or group.size != "small"


def _mirrored(scene: Scene) -> Scene:
    axis = 0 if scene.relation in ("left of", "right of") else 1

    def turned(group: Group) -> Group:
        room = CELLS - SIZES[group.size]
        places = tuple((room - x, y) if axis == 0 else (x, room - y) for x, y in group.places)
        return replace(group, places=places)

    groups = tuple(turned(group) for group in scene.groups)
    return replace(scene, groups=groups, relation=MIRRORED[scene.relation])
