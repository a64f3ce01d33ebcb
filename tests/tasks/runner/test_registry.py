"""Stages by the names of their files."""

import sys

import pytest

from tasks.paths import ROOT
from tasks.runner.names import stage_names
from tasks.runner.registry import stage_named, stage_of
from tasks.stages import mapper


def test_every_file_of_the_folder_is_a_stage():
    files = {path.stem for path in (ROOT / "tasks" / "stages").glob("*.py")} - {"__init__"}
    assert set(stage_names()) == files
    assert list(stage_names()) == sorted(files)


@pytest.mark.parametrize("name", stage_names())
def test_each_can_be_read_and_knows_its_name(name):
    stage = stage_named(name)
    assert stage.name == name
    assert stage.declared.version >= 1
    assert stage.declared.description
    assert stage_of(stage.run) is stage


def test_a_function_is_its_modules_stage():
    assert stage_of(mapper.run).declared is mapper.STAGE


@pytest.mark.parametrize(("wrong", "near"), [("maper", "mapper"), ("../x", ""), ("__init__", "")])
def test_an_unknown_stage_is_refused_before_anything_is_imported(wrong, near):
    with pytest.raises(
        ValueError, match=rf"unknown stage '{wrong}'; did you mean '{near}.*Stages: "
    ):
        stage_named(wrong)
    assert f"tasks.stages.{wrong}" not in sys.modules
