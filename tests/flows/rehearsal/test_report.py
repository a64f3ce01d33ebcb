"""A rehearsal's figures, for people and for scripts."""

from micro_rehearsal import MICRO

from flows.rehearsal import report
from flows.rehearsal.estimate import Estimate, Measured

TOOK = {"mapper": Measured("mapper", 90.0, {}, 1e6, 2e6, 3e9, None)}
WHOLE = {"mapper": Estimate("mapper", "steps", 20_000.0, 36_000.0, 5e9, 6e9, None)}
WHERE = {
    "processor": "a processor", "cores": 2, "memory_bytes": 23e9, "gpus": [], "torch": "2",
    "load": [1.0, 2.0, 3.0],
}  # fmt: skip


def test_the_table_says_what_was_measured_what_follows_and_where():
    said = report.table(MICRO, TOOK, WHOLE, WHERE)
    for word in ("90.0", "20,000 steps", "10.0 h", "a processor", "no GPU", "load 1.0, 2.0, 3.0",
                 "2 of 3 layers of the language model"):  # fmt: skip
        assert word in said, word


def test_the_same_as_plain_values():
    found = report.described(MICRO, TOOK, WHOLE, WHERE)
    assert found["stages"]["mapper"]["whole"]["seconds"] == 36_000
    assert found["whole"] == {"seconds": 36_000.0, "bytes": 5e9}
    assert found["cut"] == MICRO.cut()
    assert len(found["assumptions"]) == len(report.assumptions(MICRO))


def test_durations_in_the_unit_of_a_person():
    said = [report.duration(seconds) for seconds in (90, 200, 7200, 200_000)]
    assert said == ["90 s", "3.3 min", "2.0 h", "2.3 days"]
