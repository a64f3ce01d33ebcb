"""Unexpected exceptions are counted one by one, up to a bound that says why."""

import logging

import pytest

from data.faults import SystematicFaultError, Tolerance


def some(faults, count, place="here"):
    for _ in range(count):
        faults.unexpected(place, ZeroDivisionError("by nought"))


def test_an_exception_is_a_reason_and_the_first_of_a_kind_is_logged(caplog):
    faults = Tolerance("rows")
    assert faults.unexpected("line 1", KeyError("a")) == "unexpected:KeyError"
    some(faults, 3)
    assert [r.exc_info[0] for r in caplog.records] == [KeyError, ZeroDivisionError]
    assert "line 1" in caplog.text


def test_a_hundred_in_a_row_end_the_work_and_say_why():
    faults = Tolerance("rows")
    for _ in range(10_000):
        faults.expected()
    some(faults, 99)
    faults.expected()
    some(faults, 99)
    with pytest.raises(SystematicFaultError) as found:
        faults.unexpected("line 7", ZeroDivisionError("by nought"))
    for part in ("199 of 10200 rows", "100 in a row", "line 7", "ZeroDivisionError: by nought"):
        assert part in str(found.value)
    assert isinstance(found.value.__cause__, ZeroDivisionError)


def test_over_a_fifth_ends_the_work_once_there_are_enough_to_tell():
    logging.disable()
    faults = Tolerance("rows")
    for _ in range(20):
        some(faults, 1)
        for _ in range(4):
            faults.expected()
    with pytest.raises(SystematicFaultError, match="21 of 101 rows"):
        some(faults, 1)
    logging.disable(logging.NOTSET)
    few = Tolerance("rows")
    some(few, 90)
