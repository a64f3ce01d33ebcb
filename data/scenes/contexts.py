"""Stories and dialogues by the grammar: what the last image must show is spread over the context.

- A *told story* is five captions. The first sets the mood, the next two bring in the cast, one
  object in each, the fourth goes somewhere else, and the last says only where "the same ones" are
  now. The last image follows from all of them together, never from the last alone.
- A *shown story* says of its cast nothing at all ("look who is here"): only the four images do.
- A *dialogue* reveals object, number, size, place and ground in ten rounds, some of which reveal
  nothing, in an order of its own.

All of them are longer than the generator's text encoder reads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from data.scenes.captions import (
    OPPOSITE,
    RELATION_WORDS,
    SIZE_WORDS,
    ground_words,
    group_words,
)
from data.scenes.grammar import GROUNDS, SPLITS, Group, Scene, Split, World
from data.scenes.objects import BY_NAME
from data.scenes.randomness import Draws

LENGTH, ROUNDS = 5, 10
MOODS = (
    "It is early in the morning, nobody is awake yet, and our story begins {}.",
    "Long ago, on a day like every other day, something happened {}.",
    "This story begins quietly, as so many stories do, {}.",
    "Nobody knows how it all began, but it must have been {}.",
)
ARRIVALS = (
    "Then we see {}.",
    "After a while {} can be seen.",
    "Suddenly there {be} {}.",
    "And look, here {be} {}.",
)
JOINED = ("Then {} can be seen.", "Now there {be} {} too.")
ALONE = ("Nobody else comes along.", "Nothing else is to be seen.", "And that is all there is.")
TRAVELS = ("Later it all goes on {}.", "The next day {they} {are} {}.", "Soon we see {them} {}.")
ENDINGS = ("In the end {they} {are} {}.", "Now {they} {are} {}.", "At last we see {them} {}.")
PRONOUNS = {
    False: {"they": "it", "them": "it", "are": "is"},
    True: {"they": "they", "them": "them", "are": "are"},
}
UNSAID = (
    "Look who is here.",
    "Here they are again.",
    "This is what happened next.",
    "And it goes on like this.",
    "Somebody took this one too.",
)


@dataclass(frozen=True)
class Story:
    """Captions and scenes in their order; the last scene is to be made.

    Attributes:
        captions: ``LENGTH`` of them. scenes: as many.
    """

    captions: tuple[str, ...]
    scenes: tuple[Scene, ...]


@dataclass(frozen=True)
class Dialogue:
    """Rounds of question and answer, and the scene that they tell of."""

    rounds: tuple[tuple[str, str], ...]
    scene: Scene


def story(world: World, split: Split, index: int, shown: bool = False) -> Story:
    """The story of an index.

    Args:
        shown: whether the cast is only shown in the images, and not told.
    """
    draws = Draws(SPLITS[split], index, 2_000 + shown)
    last = _of_two_kinds_at_most(world, split, draws)
    grounds = [g for g in GROUNDS if g != last.ground]
    places = [draws.choice(grounds) for _ in range(LENGTH - 1)]
    scenes = (*(replace(last, ground=ground) for ground in places), last)
    said = PRONOUNS[sum(group.number for group in last.groups) > 1]
    end = draws.choice(ENDINGS).format(ground_words(last.ground, draws), **said)
    if shown:
        return Story((*(draws.choice(UNSAID) for _ in places), end), scenes)
    first, *others = last.groups
    second = _joined(first, others[0], last, draws) if others else draws.choice(ALONE)
    captions = (
        draws.choice(MOODS).format(ground_words(places[0], draws)),
        _brought_in(ARRIVALS, group_words(first, draws), first, draws),
        second,
        draws.choice(TRAVELS).format(ground_words(places[3], draws), **said),
        end,
    )
    return Story(captions, scenes)


def dialogue(world: World, split: Split, index: int) -> Dialogue:
    """The dialogue of an index: ten rounds in an order of their own."""
    draws = Draws(SPLITS[split], index, 3_000)
    scene = _of_two_kinds_at_most(world, split, draws)
    telling = _telling(scene, draws)
    silent = list(SMALL_TALK)
    while len(telling) < ROUNDS:
        telling.append(silent.pop(draws.below(len(silent))))
    rounds = []
    while telling:
        rounds.append(telling.pop(draws.below(len(telling))))
    return Dialogue(tuple(rounds), scene)


def _of_two_kinds_at_most(world: World, split: Split, draws: Draws) -> Scene:
    """A scene whose groups can be told one by one, and its relation with the second."""
    while True:
        scene = world.scene(split, 1_000_000 + draws.below(1_000_000))
        if len(scene.groups) < 3 and (len(scene.groups) == 1 or scene.relation):
            return replace(scene, place="")


def _brought_in(forms: tuple[str, ...], words: str, group: Group, draws: Draws) -> str:
    return draws.choice(forms).format(words, be=_verb(group))


def _joined(first: Group, second: Group, scene: Scene, draws: Draws) -> str:
    """The second of the cast, and how it stands to the first."""
    words = group_words(second, draws)
    how = draws.choice(RELATION_WORDS[OPPOSITE[scene.relation]])
    there = f"{words} {how} the {_noun(first)}"
    return _brought_in(JOINED, there, second, draws)


def _noun(group: Group) -> str:
    thing = BY_NAME[group.name]
    return thing.name if group.number == 1 else thing.plural


SMALL_TALK = (
    ("is it a photo", "no, somebody has painted it"),
    ("do you like it", "yes, very much"),
    ("is it an old one", "I do not think so"),
    ("are there any people", "no, I see none"),
    ("is there any text in it", "no, not a word"),
    ("is it hard to make out", "no, it is all quite clear"),
    ("who has made it", "I do not know"),
    ("would you hang it on a wall", "I think I would"),
    ("is anything cut off at the edge", "no, nothing is"),
    ("have you seen it before", "no, never"),
)


def _telling(scene: Scene, draws: Draws) -> list[tuple[str, str]]:
    """The rounds that say something."""
    first, *others = scene.groups
    rounds = [("where is it", ground_words(scene.ground, draws)), *_about(first, draws)]
    for other in others:
        how = f"{draws.choice(RELATION_WORDS[scene.relation])} the {_noun(other)}"
        rounds.append(("what else is there", f"{_article(other)} {_noun(other)}"))
        rounds += _about(other, draws)[1:]
        rounds.append((f"where {_verb(first)} the {_noun(first)}", how))
    return rounds


def _about(group: Group, draws: Draws) -> list[tuple[str, str]]:
    """What there is, how many, and how large where that is not the usual."""
    noun, numbers = _noun(group), {1: "just one", 2: "two", 3: "three"}
    rounds = [
        ("what do you see in it", f"{_article(group)} {noun}"),
        (f"how many {BY_NAME[group.name].plural} are there", numbers[group.number]),
    ]
    if group.size != "medium":
        size = draws.choice(SIZE_WORDS[group.size])
        rounds.append((f"how large {_verb(group)} the {noun}", size))
    return rounds


def _verb(group: Group) -> str:
    return "is" if group.number == 1 else "are"


def _article(group: Group) -> str:
    return BY_NAME[group.name].article if group.number == 1 else "some"
