"""Random numbers that are the same on every machine: splitmix64 on a counter, plain integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15

T = TypeVar("T")


def mix(value: int) -> int:
    """Scramble 64 bits (the finaliser of splitmix64; Steele, Lea and Flood 2014)."""
    value &= MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def text_hash(text: str) -> int:
    """64 bits of a string, the same in every process."""
    value = GOLDEN
    for byte in text.encode():
        value = mix(value ^ byte)
    return value


class Draws:
    """A stream of integers that depends on its keys alone.

    Args:
        keys: integers such as a seed and an index; each pair of keys has its own stream.
    """

    __slots__ = ("_state",)

    def __init__(self, *keys: int) -> None:
        state = 0
        for key in keys:
            state = mix(state + GOLDEN + (key & MASK))
        self._state = state

    def below(self, bound: int) -> int:
        """An integer from 0 to ``bound`` - 1, uniform to within ``bound`` / 2**32."""
        self._state = (self._state + GOLDEN) & MASK
        return ((mix(self._state) >> 32) * bound) >> 32

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def percent(self, chance: int) -> bool:
        """True in ``chance`` of 100 cases."""
        return self.below(100) < chance
