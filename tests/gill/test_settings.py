"""How components declare settings: parts of a whole, other defaults, unknown names."""

import math

import pytest
from pydantic import BaseModel, ValidationError

from gill.settings import ComponentSettings, said, setting, with_default


class Size(ComponentSettings):
    width: int = setting(4, "of the layer", unit="units", source="a guess", ge=1)
    depth: int = setting(2, "of the stack", ge=1)


class Whole(Size):
    depth: int = with_default(Size, "depth", 7, "a better guess")
    seed: int = setting(0, "of all")


def test_a_component_takes_its_part_of_a_whole():
    part = Size.of(Whole(width=3, seed=9))
    assert type(part) is Size
    assert part.model_dump() == {"width": 3, "depth": 7}


def test_another_default_leaves_the_declaration():
    field = Whole.model_fields["depth"]
    assert (field.default, field.description) == (7, "of the stack")
    assert field.json_schema_extra["source"] == "a better guess"
    assert Size.model_fields["depth"].default == 2
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Whole(depth=0)


def test_a_field_without_a_declaration_is_refused():
    class Bare(BaseModel):
        depth: int = 1

    with pytest.raises(TypeError, match=r"Bare\.depth was not declared with `setting`"):
        with_default(Bare, "depth", 2)


def test_texts_of_a_record_become_what_they_were_and_elsewhere_are_refused():
    assert Size.model_validate_strings({"width": "3", "depth": "5"}) == Size(width=3, depth=5)
    for wrong in ("3", True, 2.5, None, math.nan):
        with pytest.raises(ValidationError):
            Size(width=wrong)
    assert Size(width=3.0).width == 3


def test_what_is_wrong_is_said_in_a_line():
    with pytest.raises(ValidationError) as error:
        Size(width=0, depth="deep", hight=1)
    assert said(error.value, "size") == (
        "size.width is 0; it must be greater than or equal to 1; "
        "size.depth is 'deep'; it must be a whole number, not text; size.hight is no setting"
    )
    with pytest.raises(ValidationError) as error:
        Size(width="x" * 1000)
    assert len(said(error.value)) < 250


def test_unknown_names_and_changes_are_refused():
    with pytest.raises(ValidationError, match="widht"):
        Size(widht=3)
    with pytest.raises(ValidationError, match="frozen"):
        Size().width = 5
