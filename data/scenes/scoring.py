"""How much of what a caption says is seen in an image, factor by factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.scenes.grammar import GROUNDS, SIZES, Scene
from data.scenes.objects import THINGS

SIZE_NAMES = tuple(SIZES)
KIND_OF = {thing.name: i for i, thing in enumerate(THINGS)}
FACTORS = ("object_f1", "number", "size", "relation", "place", "ground", "all")


@dataclass(frozen=True)
class Seen:
    """One object that was seen: kind and size by number, centre in cells."""

    kind: int
    size: int
    x: float
    y: float


def score(scene: Scene, seen: Sequence[Seen], ground: int) -> dict[str, float]:
    """Scores from 0 to 1; a factor that the scene does not have is left out.

    ``object_f1`` compares the sets of kinds. A number, size or relation is right only if its
    objects are there; ``order`` is the relation among images in which both are there.
    """
    said = {KIND_OF[group.name]: group for group in scene.groups}
    kinds = {s.kind for s in seen}
    hits = len(kinds & set(said))
    found = {"object_f1": 2 * hits / (len(kinds) + len(said)), "ground": 0.0}
    by_kind = {kind: [s for s in seen if s.kind == kind] for kind in said}
    number = [len(by_kind[kind]) == group.number for kind, group in said.items()]
    found["number"] = sum(number) / len(said)
    sizes = [_common_size(by_kind[kind]) == group.size for kind, group in said.items()]
    found["size"] = sum(sizes) / len(said)
    found["ground"] = float(GROUNDS[ground] == scene.ground)
    if scene.relation:
        first, *others = (by_kind[KIND_OF[group.name]] for group in scene.groups)
        there = bool(first) and all(others)
        holds = there and all(_holds(scene.relation, first, other) for other in others)
        found["relation"] = float(holds)
        if there:
            found["order"] = float(holds)
    if scene.place:
        only = by_kind[KIND_OF[scene.groups[0].name]]
        found["place"] = float(len(only) == 1 and _stands(scene.place, only[0]))
    required = [*number, *sizes, found["ground"], kinds == set(said), found.get("relation", 1.0),
                found.get("place", 1.0)]  # fmt: skip
    found["all"] = float(all(required))
    return found


def _common_size(seen: Sequence[Seen]) -> str:
    sizes = [SIZE_NAMES[s.size] for s in seen]
    return max(sizes, key=sizes.count) if sizes else ""


def _centre(seen: Sequence[Seen]) -> tuple[float, float]:
    return sum(s.x for s in seen) / len(seen), sum(s.y for s in seen) / len(seen)


def _holds(relation: str, first: Sequence[Seen], other: Sequence[Seen]) -> bool:
    (ax, ay), (bx, by) = _centre(first), _centre(other)
    distance = {"left of": bx - ax, "right of": ax - bx, "above": by - ay, "below": ay - by}
    return distance[relation] >= 1


def _stands(place: str, seen: Seen) -> bool:
    edge = SIZES[SIZE_NAMES[seen.size]] / 2
    return {
        "at the top": seen.y - edge < 1,
        "at the bottom": seen.y + edge > 7,
        "on the left": seen.x - edge < 1,
        "on the right": seen.x + edge > 7,
        "in the middle": abs(seen.x - 4) <= 1 and abs(seen.y - 4) <= 1,
    }[place]
