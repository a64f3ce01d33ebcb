"""What a scene holds and how one is drawn from (seed, index).

A scene has one to three groups of things on a ground. Places are whole cells of 8 x 8 pixels, the
cells of the generator's latents: a thing then looks the same to the autoencoder wherever it stands,
which is what makes the world learnable on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

from data.scenes.objects import THINGS
from data.scenes.randomness import Draws, mix, text_hash

CELL = 8  # pixels
CELLS = 8  # cells along an edge of the image
SIZES = {"small": 3, "medium": 4, "large": 5, "huge": 7}  # edge of a sprite, in cells
RELATIONS = ("left of", "right of", "above", "below")
PLACES = ("at the top", "at the bottom", "on the left", "on the right", "in the middle")
PLAIN = ("white", "gray", "black", "red", "yellow", "green", "blue", "purple", "pink", "brown")
NAMED = ("meadow", "beach", "snow", "desert", "street", "deep sea", "sunset", "night")
GROUNDS = PLAIN + NAMED
HELD_OUT_PAIRS, HELD_OUT_GROUNDS = 10, 7  # per cent of pairs that never occur in training

Split = Literal["train", "validation", "test", "test_new"]
SPLITS: dict[Split, int] = {"train": 1, "validation": 2, "test": 3, "test_new": 4}


@dataclass(frozen=True)
class Group:
    """Things of one kind.

    Attributes:
        name: of an object. number: 1 to 3. size: of each.
        places: left upper corner of each, in cells from the left and from the top.
    """

    name: str
    number: int
    size: str
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Scene:
    """The whole truth about one image.

    Attributes:
        groups: one to three kinds of things.
        relation: how the first group stands to each other one, "" where the caption may not say.
        place: where a single thing stands, "" where the caption may not say.
        ground: what is behind.
    """

    groups: tuple[Group, ...]
    relation: str
    place: str
    ground: str

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers, for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(found: Mapping[str, Any]) -> Scene:
        """The inverse of ``to_dict``, also after JSON."""
        groups = tuple(
            Group(g["name"], g["number"], g["size"], tuple((x, y) for x, y in g["places"]))
            for g in found["groups"]
        )
        return Scene(groups, found["relation"], found["place"], found["ground"])


@dataclass(frozen=True)
class World:
    """Which scenes there are.

    Attributes:
        objects: the first so many of ``THINGS``.
        shares: per cent of scenes with one thing, several of a kind, two kinds; the rest have
            three kinds.
    """

    objects: int = 40
    shares: tuple[int, int, int] = (25, 20, 50)

    def scene(self, split: Split, index: int) -> Scene:
        """The scene of a split and index: drawn again until its composition belongs there."""
        draws = Draws(SPLITS[split], index)
        while True:
            found = self._draw(draws)
            if is_new(found) == (split == "test_new"):
                return found

    def scenes(self, split: Split, start: int = 0) -> Iterator[Scene]:
        """All scenes of a split from an index on; it does not end."""
        while True:
            yield self.scene(split, start)
            start += 1

    def _draw(self, draws: Draws) -> Scene:
        kind, (one, several, two) = draws.below(100), self.shares
        ground = draws.choice(GROUNDS)
        if kind < one:
            return _single(draws, self._names(draws, 1)[0], ground)
        if kind < one + several:
            return _several(draws, self._names(draws, 1)[0], ground)
        if kind < one + several + two:
            return _pair(draws, self._names(draws, 2), ground)
        return _triple(draws, self._names(draws, 3), ground)

    def _names(self, draws: Draws, count: int) -> list[str]:
        found: list[str] = []
        while len(found) < count:
            name = THINGS[draws.below(self.objects)].name
            if name not in found:
                found.append(name)
        return found


@cache
def held_out_pair(one: str, other: str) -> bool:
    """Whether two kinds never stand in one training image."""
    first, second = sorted((one, other))
    return mix(text_hash(f"{first}+{second}")) % 100 < HELD_OUT_PAIRS


@cache
def held_out_ground(name: str, ground: str) -> bool:
    """Whether a kind never stands on a ground in training."""
    return mix(text_hash(f"{name}@{ground}")) % 100 < HELD_OUT_GROUNDS


def is_new(scene: Scene) -> bool:
    """Whether a scene holds a composition that training never shows."""
    names = [group.name for group in scene.groups]
    return any(held_out_ground(name, scene.ground) for name in names) or any(
        held_out_pair(one, other) for i, one in enumerate(names) for other in names[:i]
    )


def _single(draws: Draws, name: str, ground: str) -> Scene:
    size = draws.choice(("small", "medium", "medium", "large", "huge"))
    room = CELLS - SIZES[size]
    x, y = draws.below(room + 1), draws.below(room + 1)
    place = ""
    if size in ("small", "medium") and draws.percent(50):
        place = draws.choice(PLACES)
        middle = room // 2
        x, y = {
            "at the top": (x, 0),
            "at the bottom": (x, room),
            "on the left": (0, y),
            "on the right": (room, y),
            "in the middle": (middle, middle),
        }[place]
    return Scene((Group(name, 1, size, ((x, y),)),), "", place, ground)


def _several(draws: Draws, name: str, ground: str) -> Scene:
    number = 2 + draws.below(2)
    size = draws.choice(("small", "medium", "medium"))
    spare = CELLS // 2 - SIZES[size]
    if number == 3:
        empty = draws.choice(QUADRANTS)
        places = tuple(_within(draws, q, spare) for q in QUADRANTS if q != empty)
        return Scene((Group(name, 3, size, places),), "", "", ground)
    way = draws.below(3)
    if way == 2:  # on a diagonal
        left = draws.below(2)
        corners = ((0, 0), (4, 4)) if left else ((4, 0), (0, 4))
        places = tuple(_within(draws, q, spare) for q in corners)
    else:
        along = draws.below(CELLS - SIZES[size] + 1)
        first, second = draws.below(spare + 1), 4 + draws.below(spare + 1)
        places = ((first, along), (second, along)) if way else ((along, first), (along, second))
    return Scene((Group(name, 2, size, places),), "", "", ground)


QUADRANTS = ((0, 0), (4, 0), (0, 4), (4, 4))


def _within(draws: Draws, corner: tuple[int, int], spare: int) -> tuple[int, int]:
    return corner[0] + draws.below(spare + 1), corner[1] + draws.below(spare + 1)


def _pair(draws: Draws, names: list[str], ground: str) -> Scene:
    relation = draws.choice(RELATIONS)
    numbers = draws.choice(((1, 1), (1, 1), (1, 1), (1, 2), (2, 1), (2, 2)))
    if numbers == (1, 1):
        sizes = draws.choice(
            (("medium", "medium"), ("medium", "medium"), ("small", "medium"), ("medium", "small"),
             ("small", "large"), ("large", "small"), ("small", "small"))
        )  # fmt: skip
    else:
        sizes = (draws.choice(("small", "medium")), draws.choice(("small", "medium")))
    # Laid out along u, the axis of the relation, and v across it; then turned.
    edges = [SIZES[s] for s in sizes]
    first_comes_first = relation in ("left of", "above")
    order = (0, 1) if first_comes_first else (1, 0)
    slack = CELLS - sum(edges) if numbers == (1, 1) else None
    columns: dict[int, list[tuple[int, int]]] = {}
    base = draws.below(CELLS)
    for rank, which in enumerate(order):
        edge = edges[which]
        if slack is None:
            u = 4 * rank + draws.below(4 - edge + 1)
        else:
            step = draws.below(slack + 1)
            slack -= step
            u = step if rank == 0 else CELLS - edge - step
        if numbers[which] == 1:
            v = min(max(base + draws.below(3) - 1 - edge // 2, 0), CELLS - edge)
            columns[which] = [(u, v)]
        else:
            columns[which] = [(u, 4 * k + draws.below(4 - edge + 1)) for k in range(2)]
    turned = relation in ("above", "below")
    groups = tuple(
        Group(
            names[i],
            numbers[i],
            sizes[i],
            tuple((v, u) if turned else (u, v) for u, v in columns[i]),
        )
        for i in range(2)
    )
    said = "" if draws.percent(15) else relation
    return Scene(groups, said, "", ground)


def _triple(draws: Draws, names: list[str], ground: str) -> Scene:
    relation = draws.choice(("above", "below"))
    size = draws.choice(("small", "medium"))
    edge = SIZES[size]
    top = relation == "above"
    alone = (draws.below(CELLS - edge + 1), (0 if top else 4) + draws.below(4 - edge + 1))
    row = (4 if top else 0) + draws.below(4 - edge + 1)
    places = [alone, (draws.below(4 - edge + 1), row), (4 + draws.below(4 - edge + 1), row)]
    groups = tuple(Group(n, 1, size, (p,)) for n, p in zip(names, places, strict=True))
    said = "" if draws.percent(30) else relation
    return Scene(groups, said, "", ground)
