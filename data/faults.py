"""What nobody expected of one item is counted; what befalls all items ends the work and is told."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)
MOST_IN_A_ROW = 100
MOST_SHARE, OF_AT_LEAST = 0.2, 100


class SystematicFaultError(RuntimeError):
    """Unexpected exceptions at so many items that the fault is not the items'."""


class Tolerance:
    """The unexpected exceptions of one reader of items, each a counted reason, up to a bound.

    Args:
        what: the items, in plural, for messages.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._seen = self._unexpected = self._in_a_row = 0
        self._logged: set[str] = set()

    def expected(self) -> None:
        """An item came out as it may: well, or for a known reason not."""
        self._seen += 1
        self._in_a_row = 0

    def unexpected(self, place: str, error: Exception) -> str:
        """The reason to count an item by, ``unexpected:<type>``; the first of each kind is logged.

        Raises:
            SystematicFaultError: 100 in a row, or over 20 per cent of at least 100 items.
        """
        reason = f"unexpected:{type(error).__name__}"
        if reason not in self._logged:
            self._logged.add(reason)
            log.warning("%s at %s; later ones are only counted", reason, place, exc_info=error)
        self._seen += 1
        self._unexpected += 1
        self._in_a_row += 1
        often = self._seen >= OF_AT_LEAST and self._unexpected > MOST_SHARE * self._seen
        if often or self._in_a_row >= MOST_IN_A_ROW:
            raise SystematicFaultError(
                f"{self._unexpected} of {self._seen} {self._what} failed as this program does not "
                f"expect ({self._in_a_row} in a row), the last at {place}: {type(error).__name__}: "
                f"{str(error)[:300]}. So many are no faults of single items: look at the first "
                "traceback of each kind in the log, mend the cause and run again; what is "
                "finished is kept"
            ) from error
        return reason
