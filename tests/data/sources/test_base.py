"""Rows of all sources: what nobody expected is a counted row, and any text can be stored."""

import pytest

from data.faults import SystematicFaultError, Tolerance
from data.sources.base import Pair, Rejected, guarded, printable, storable


def test_a_row_that_raises_is_a_counted_row():
    good = Pair("k1", "a", "o", "s", None)

    def bad():
        raise LookupError("no such codec")

    faults = Tolerance("rows")
    assert guarded(lambda: good, "k1", "line 1", faults) is good
    expected = Rejected("k2", "unexpected:LookupError", "line 2: no such codec")
    assert guarded(bad, "k2", "line 2", faults) == expected
    for _ in range(97):
        guarded(bad, "k", "line 3", faults)
    with pytest.raises(SystematicFaultError, match="line 4"):
        guarded(bad, "k", "line 4", faults)


@pytest.mark.parametrize("text", ["é", "caf\udce9", "a\udcffb\ud83d", ""])
def test_any_text_can_be_stored(text):
    assert storable(printable(text))
    assert not storable(text) or printable(text) == text
