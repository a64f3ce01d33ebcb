"""Prefect's run form: menus for recipe and stage; others are refused before a run exists."""

import pytest
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.ablation import ablation
from flows.names import RECIPE_NAMES
from flows.pipeline import gill
from tasks.runner.names import stage_names


@pytest.fixture(scope="module")
def schema():
    return parameter_schema(gill.fn).model_dump()


def test_recipe_and_stage_are_menus(schema):
    form = schema["properties"]
    assert form["recipe"]["enum"] == list(RECIPE_NAMES)
    assert form["stage"]["anyOf"] == [
        {"enum": list(stage_names()), "type": "string"},
        {"type": "null"},
    ]
    assert parameter_schema(ablation.fn).model_dump()["properties"]["recipe"]["enum"] == list(
        RECIPE_NAMES
    )


@pytest.mark.parametrize("wrong", [{"recipe": "embeded"}, {"stage": "maper"}, {"force": ["maper"]}])
def test_others_are_refused_before_a_run_exists(schema, wrong):
    validate({"recipe": "tiny", "stage": "mapper", "force": ["mapper"]}, schema)
    with pytest.raises(ValidationError):
        validate(wrong, schema, raise_on_error=True)
    with pytest.raises(ParameterTypeError):
        gill.validate_parameters({"recipe": "tiny", "overrides": None, "stage": None,
                                  "force": False, **wrong})  # fmt: skip
