"""The table that ends a run."""

from data.io.atomic import write_json
from flows.local.summary import failure_of, table_of


def test_the_table_has_each_stage_with_its_headline():
    stages = {
        "mapper": {
            "status": "ran",
            "seconds": 12.34,
            "metrics": {"validation_l_g": 3.8251, "x": 1},
        },
        "index": {"status": "reused", "seconds": 0.1, "metrics": {}},
    }
    table = table_of({"stages": stages})
    (mapper,) = [line for line in table.splitlines() if "mapper" in line]
    assert "ran" in mapper
    assert "12.3" in mapper
    assert "validation_l_g 3.83" in mapper
    assert " x 1" not in mapper
    assert any("index" in line and "reused" in line for line in table.splitlines())


def test_a_run_that_left_no_summary_is_told_from_one_that_failed(tmp_path):
    summary = tmp_path / "run.json"
    assert "was killed" in failure_of(summary, "its process is gone")
    assert "its process is gone" in failure_of(summary, "its process is gone")
    write_json(summary, {"state": "running"})
    assert "was killed" in failure_of(summary, "its process is gone")
    write_json(summary, {"state": "failed", "error": "no images"})
    assert failure_of(summary, "") == "the run failed: no images"
    write_json(summary, {"state": "completed", "error": None})
    assert failure_of(summary, "") is None
