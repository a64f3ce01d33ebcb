"""Changed stage code is noticed: raise the stage's version, or say that results stay the same."""

import json

import pytest

from tasks.runner.registry import STAGES
from tasks.runner.versions import RECORD, code_hash


@pytest.mark.parametrize("name", STAGES)
def test_code_is_as_recorded(name):
    recorded = json.loads(RECORD.read_text())[name]
    now = {"version": STAGES[name].version, "code": code_hash(STAGES[name])}
    assert now == recorded, (
        f"the code of {name} changed. If its results change, raise its version in "
        "tasks/runner/registry.py. Then run `python -m tasks.runner.versions`, commit its record."
    )
