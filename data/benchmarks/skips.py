"""Items of a benchmark's file that cannot be used: counted by reason, with samples of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from data.faults import Tolerance
from data.sources.base import printable, storable

Item = TypeVar("Item")
_SAMPLES_OF_EACH = 5


class UnusableError(ValueError):
    """Why an item cannot be used: a reason to count it by, and what was found."""

    def __init__(self, reason: str, found: object = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = printable(str(found))[:300]


@dataclass(frozen=True)
class Skipped:
    """An item that was left out, and where it is."""

    reason: str
    place: str
    detail: str


class Skips:
    """The items that were left out.

    Args:
        what: the items, in plural, for messages.

    Attributes:
        counts: by reason. samples: the first of each.
    """

    def __init__(self, what: str) -> None:
        self.counts: Counter[str] = Counter()
        self.samples: list[Skipped] = []
        self._faults = Tolerance(what)

    def made(self, make: Callable[[], Item], place: str) -> Item | None:
        """What ``make`` gives, or None and a count.

        Raises:
            SystematicFaultError: too many items raise what nobody expects.
        """
        try:
            item = make()
        except UnusableError as error:
            self._faults.expected()
            self._add(error.reason, place, error.detail)
        except Exception as error:  # noqa: BLE001 one item must not end the others
            self._add(self._faults.unexpected(place, error), place, printable(str(error))[:300])
        else:
            self._faults.expected()
            return item
        return None

    def _add(self, reason: str, place: str, detail: str) -> None:
        self.counts[reason] += 1
        if self.counts[reason] <= _SAMPLES_OF_EACH:
            self.samples.append(Skipped(reason, printable(place), detail))


def text_of(value: Any, what: str) -> str:
    """A text that says something.

    Raises:
        UnusableError: ``blank <what>`` or ``bad text``.
    """
    if not isinstance(value, str) or not value.strip():
        raise UnusableError(f"blank {what}", repr(value)[:300])
    if not storable(value):
        raise UnusableError("bad text", value)
    return value


def number_of(value: Any, what: str) -> int:
    """A whole number from 0 on, also written as text.

    Raises:
        UnusableError: ``bad <what>``.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if type(value) is not int or value < 0:
        raise UnusableError(f"bad {what}", repr(value)[:300])
    return value
