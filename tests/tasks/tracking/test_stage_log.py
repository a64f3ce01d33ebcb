"""What a stage says on the console: rates, the time that is left, and not too often."""

import logging

import pytest

from tasks.tracking import stage_log
from tasks.tracking.stage_log import ConsoleLog, Eta


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = [100.0]
    monkeypatch.setattr(stage_log.time, "monotonic", lambda: now[0])
    return now


def test_rate_and_time_left_by_hand(clock):
    eta = Eta()
    assert eta.line(0, 200, "images") == "0/200 images (0%), 0.0/s, measuring"
    clock[0] += 10
    assert eta.line(50, 200, "images") == "50/200 images (25%), 5.0/s, 30 s left"


def test_what_an_earlier_process_did_is_no_speed(clock):
    eta = Eta()
    eta.line(100, 200, "steps", resumed=100)
    clock[0] += 10
    assert eta.line(110, 200, "steps", resumed=100) == "110/200 steps (55%), 1.0/s, 90 s left"


def test_lines_come_every_few_seconds_and_the_last_always(clock):
    eta = Eta(every=5.0)
    said = []
    for done in range(11):
        said.append(eta.line(done, 10, "images") is not None)
        clock[0] += 1
    assert said == [True, *[False] * 4, True, *[False] * 4, True]


def test_each_kind_of_work_has_its_own_clock(clock):
    eta = Eta()
    assert eta.line(0, 10, "images")
    assert eta.line(0, 10, "captions")
    assert eta.line(1, 10, "images") is None


def test_no_work_at_all_is_no_division_by_nothing(clock):
    assert Eta().line(0, 0, "images") == "0/0 images (0%), 0.0/s, measuring"


def test_the_console_keeps_metrics_and_tables_and_prints_the_rest(caplog):
    log, values = ConsoleLog(), {"loss": 1.0}
    with caplog.at_level(logging.INFO, "gill"):
        log.metrics(values, 3)
        values["loss"] = 9.0  # a stage may go on using its dictionary
        log.table("votes", {"prompt": ["a"]})
        log.note("two rows left out")
        log.progress(1, 2, "images")
        log.progress(1, 2, "images")
    assert log.history == [(3, {"loss": 1.0})]
    assert log.tables == {"votes": {"prompt": ["a"]}}
    assert caplog.messages == ["two rows left out", "1/2 images (50%), 0.0/s, measuring"]


def test_rates_are_kept_for_the_manifest_also_of_lines_that_are_not_said(clock):
    log = ConsoleLog()
    log.progress(1, 9, "steps")  # the first step also warms up
    clock[0] += 1
    log.progress(3, 9, "steps")
    assert log.measured == {"steps/s": 2.0}
    clock[0] += 3
    log.progress(5, 9, "steps")
    assert log.measured == {"steps/s": 1.0}
