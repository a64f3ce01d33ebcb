"""The table that ends a run."""

from flows.local.summary import table_of


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
