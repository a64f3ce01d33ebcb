"""Changed stage code is noticed: raise the stage's version, or say that results stay the same."""

import json

import pytest

from tasks.runner.registry import stage_named, stage_names
from tasks.runner.versions import RECORD, code_hash


@pytest.mark.parametrize("name", stage_names())
def test_code_is_as_recorded(name):
    recorded = json.loads(RECORD.read_text())[name]
    now = {"version": stage_named(name).declared.version, "code": code_hash(name)}
    assert now == recorded, (
        f"the code of {name} changed. If its results change, raise its version in "
        "its file. Then run `python -m tasks.runner.versions`, commit its record."
    )
