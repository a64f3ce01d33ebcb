"""Says what is in a scene, in varied English: a phrase, a sentence, or two and three sentences.

Every caption names all objects, their numbers, sizes other than medium, the ground, and the
relation or place where the scene has one. A long caption is longer than the generator's text
encoder reads.
"""

from __future__ import annotations

import re
from typing import Literal

from data.scenes.grammar import SPLITS, Group, Scene, Split
from data.scenes.objects import BY_NAME, THINGS
from data.scenes.randomness import Draws

# Longer names first: "hot dog" is no dog.
_NAMES = {name: thing.name for thing in THINGS for name in (thing.name, thing.plural)}
_ANY_NAME = re.compile(rf"\b({'|'.join(sorted(_NAMES, key=len, reverse=True))})\b")

Length = Literal["phrase", "sentence", "long"]
LENGTHS: tuple[Length, ...] = ("phrase", "sentence", "long")

SIZE_WORDS = {
    "small": ("small", "little", "tiny"),
    "medium": ("",),
    "large": ("large", "big"),
    "huge": ("huge", "giant", "enormous"),
}
MANY = ("two", "three", "a pair")
NUMBERS = {2: ("two", "two", "a pair of"), 3: ("three",)}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
RELATION_WORDS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath"),
}
BESIDE = ("and", "with", "together with", "and")
PLACE_WORDS = {
    "at the top": ("at the top", "near the top", "high up"),
    "at the bottom": ("at the bottom", "near the bottom", "low down"),
    "on the left": ("on the left", "at the left edge", "on the left side"),
    "on the right": ("on the right", "at the right edge", "on the right side"),
    "in the middle": ("in the middle", "in the center"),
}
GROUND_WORDS = {
    "meadow": ("in a meadow", "on green grass", "in a green field"),
    "beach": ("on a beach", "at the seaside", "on the sand by the sea"),
    "snow": ("in the snow", "on a snowy day", "on snowy ground"),
    "desert": ("in the desert", "on desert sand", "among desert dunes"),
    "street": ("on the street", "on a road", "on an asphalt road"),
    "deep sea": ("in the deep sea", "deep in the ocean", "deep under water"),
    "sunset": ("at sunset", "against a sunset sky", "while the sun goes down"),
    "night": ("at night", "on a starry night", "in the dark of the night"),
}
PLAIN_WORDS = ("on a {} background", "against {}", "in front of a {} wall", "on {}")


def length_of(draws: Draws) -> Length:
    """The length of a caption: 45 per cent phrases, 40 sentences, 15 long."""
    at = draws.below(100)
    return "phrase" if at < 45 else "sentence" if at < 85 else "long"


def caption(
    scene: Scene, split: Split, index: int, variant: int = 0, length: Length | None = None
) -> str:
    """The caption of the scene at an index; each variant is another wording.

    Args:
        length: of the caption, or None for the usual mixture.
    """
    draws = Draws(SPLITS[split], index, 1_000 + variant)
    usual = length_of(draws)
    return describe(scene, length or usual, draws)


def describe(scene: Scene, length: Length, draws: Draws) -> str:
    """Write one caption of a given length."""
    ground, what, where = ground_words(scene.ground, draws), subject(scene, draws), ""
    if scene.place:
        where = " " + draws.choice(PLACE_WORDS[scene.place])
    if length == "phrase":
        return _phrase(what, where, ground, draws)
    if length == "sentence":
        return _sentence(what, where, ground, draws)
    return _long(scene, ground, where, draws)


def ground_words(ground: str, draws: Draws) -> str:
    """Where the scene is: "on a beach", "against red"."""
    if ground in GROUND_WORDS:
        return draws.choice(GROUND_WORDS[ground])
    colour = "grey" if ground == "gray" and draws.percent(30) else ground
    return draws.choice(PLAIN_WORDS).format(colour)


def ground_forms(ground: str) -> tuple[str, ...]:
    """All ways in which captions name a ground."""
    return GROUND_WORDS.get(ground) or ((ground, "grey") if ground == "gray" else (ground,))


def things_in(text: str) -> set[str]:
    """Names of the objects that a text speaks of, in singular or plural."""
    return {_NAMES[word] for word in _ANY_NAME.findall(text.lower())}


def group_words(group: Group, draws: Draws) -> str:
    """A group as a noun phrase: "a small cat", "two huge dogs"."""
    thing, size = BY_NAME[group.name], draws.choice(SIZE_WORDS[group.size])
    noun = thing.name if group.number == 1 else thing.plural
    words = f"{size} {noun}" if size else noun
    if group.number > 1:
        return f"{draws.choice(NUMBERS[group.number])} {words}"
    article = "an" if words[0] in "aeiou" and not words.startswith("un") else "a"
    return f"{article} {words}"


def subject(scene: Scene, draws: Draws) -> str:
    """All groups and how they stand to each other, as one phrase."""
    said = [group_words(group, draws) for group in scene.groups]
    if len(said) == 1:
        return said[0]
    if not scene.relation:
        return _listed(said, draws)
    others = said[1:] if draws.percent(50) else said[:0:-1]
    rest = " and ".join(others)
    if draws.percent(50):
        return f"{said[0]} {draws.choice(RELATION_WORDS[scene.relation])} {rest}"
    return f"{rest} {draws.choice(RELATION_WORDS[OPPOSITE[scene.relation]])} {said[0]}"


def _listed(said: list[str], draws: Draws) -> str:
    turn = draws.below(len(said))
    listed = said[turn:] + said[:turn]
    if len(listed) == 2:
        return f"{listed[0]} {draws.choice(BESIDE)} {listed[1]}"
    return f"{listed[0]}, {listed[1]} and {listed[2]}"


def _phrase(what: str, where: str, ground: str, draws: Draws) -> str:
    form = draws.below(4)
    if form == 0:
        return f"{ground}, {what}{where}"
    if form == 1 and where:
        return f"{what} {ground},{where}"
    return f"{what}{where} {ground}"


SENTENCES = (
    "There {be} {what}{where} {ground}.",
    "{Ground} there {be} {what}{where}.",
    "You can see {what}{where} {ground}.",
    "This image shows {what}{where} {ground}.",
    "{Ground}, you see {what}{where}.",
    "Here {be} {what}{where} {ground}.",
    "We are looking at {what}{where} {ground}.",
)


def _sentence(what: str, where: str, ground: str, draws: Draws) -> str:
    be = "are" if what.startswith(MANY) else "is"
    form = draws.choice(SENTENCES)
    return form.format(be=be, what=what, where=where, ground=ground, Ground=_capital(ground))


OPENINGS = (
    "This is a simple scene with only a few things in it.",
    "Take a moment to look at this image before you read on.",
    "Somebody has made a small and quiet image for us.",
    "Let me describe to you what there is to see here.",
)
SETTINGS = ("All of it is {}.", "The whole scene is set {}.", "Everything here is {}.")
CLOSINGS = ("There is nothing else to see.", "Nothing else is there.", "That is all.", "")
APART = {
    "left of": "To the left of {} you can find {}.",
    "right of": "To the right of {} you can find {}.",
    "above": "Above {} you can find {}.",
    "below": "Below {} you can find {}.",
}


def _long(scene: Scene, ground: str, where: str, draws: Draws) -> str:
    """Two to four sentences, 30 to 60 words; the setting comes first or last."""
    setting = draws.choice(SETTINGS).format(ground)
    if scene.relation and len(scene.groups) == 2:
        first, second = (group_words(g, draws) for g in scene.groups)
        definite = _definite(scene.groups[1])
        is_are = "are" if scene.groups[1].number > 1 else "is"
        body = f"There {is_are} {second}. " + APART[scene.relation].format(definite, first)
    else:
        body = f"What you can see is {subject(scene, draws)}{where}."
    opening, closing = draws.choice(OPENINGS), draws.choice(CLOSINGS)
    if draws.percent(50):
        parts = [opening, body, setting, closing]
    else:
        parts = [setting, opening, body, closing]
    return " ".join(part for part in parts if part)


def _definite(group: Group) -> str:
    thing = BY_NAME[group.name]
    return f"the {thing.name if group.number == 1 else thing.plural}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
