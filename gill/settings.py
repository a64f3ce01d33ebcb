"""How a component declares its settings: default, meaning, unit, and where the default comes from.

A component's settings are a small frozen model beside it. Configurations of stages inherit from
these models and so take over the declarations; ``of`` cuts the component's part out again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

REFERENCE = "the reference run (docs/explanation/method.md)"
PAPER = "the paper"
UNMEASURED = "a round number that was not measured; it does not bear on the result"

# Bounds that no sensible value comes near: what lies beyond is a slip, and would fail much later.
MOST = 10**9  # of steps, pairs or images
MOST_TOGETHER = 10**6  # of rows that are computed at once
WIDEST = 1 << 16  # of a layer
LARGEST_SEED = 2**32 - 1
_LONGEST = 120  # characters of a value in a message
_NEEDLESS = re.compile(r"^(Value error, |\w+ should )")  # at the beginning of pydantic's messages


class ComponentSettings(BaseModel):
    """Base of the settings of a component: frozen, unknown names are refused.

    Values are what they are declared as: no number for a switch, no text for a number, no NaN.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would turn into another kind: true into 1, "3" into 3."""
        if info.mode not in ("python", "json"):
            return value  # `model_validate_strings`: all are texts, as MLflow keeps them
        kinds = set(_kinds(cls.model_fields[str(info.field_name)].annotation))
        for item in _items(value) if kinds else ():
            if isinstance(item, str) and "\0" in item:
                raise ValueError("a text must not hold NUL characters")
            if isinstance(item, str) and not _storable(item):
                raise ValueError("a text must be valid UTF-8")
            kind = next((kind for kind in _WORDS if isinstance(item, kind)), None)
            if kind is None or kind in kinds:
                continue
            whole = kind is float and int in kinds and item.is_integer()
            if not whole and not (kind is int and float in kinds):
                wanted = " or ".join(
                    sorted(words for kind, words in _WORDS.items() if kind in kinds)
                )
                raise ValueError(f"must be {wanted}, not {_WORDS[kind]}")
            if whole and item is value:
                if abs(value) > MOST**2:
                    raise ValueError("must be a whole number of fewer digits")
                return int(value)
        return value

    @classmethod
    def of(cls, whole: Self) -> Self:
        """The part of a configuration that declares more than these settings."""
        return cls(**{name: getattr(whole, name) for name in cls.model_fields})


def setting(
    default: Any,
    description: str,
    *,
    unit: str = "",
    source: str = "",
    extra: dict[str, Any] | None = None,
    **constraints: Any,
) -> Any:
    """Declare a setting.

    Args:
        default: its value where nothing else is said; ``...`` for none.
        description: what it means, in a sentence that begins with a small letter.
        unit: of the value. source: where the default comes from.
        extra: further marks. constraints: of pydantic's ``Field``, such as ``ge``.
    """
    marks = {"unit": unit, "source": source, **(extra or {})}
    return Field(default, description=description, json_schema_extra=marks, **constraints)


def later_setting(default: Any, description: str, **declared: Any) -> Any:
    """A setting that came later: at its default, all is as it was before there was one.

    It bears on the result and goes into fingerprints, but only with another value, so that what was
    made before stays in use.
    """
    return setting(default, description, extra={"unfingerprinted_at_default": True}, **declared)


def with_default(owner: type[BaseModel], name: str, default: Any, source: str = "") -> Any:
    """A setting of ``owner`` with another default; the rest of its declaration stays as it is."""
    declared = owner.model_fields[name]
    marks = declared.json_schema_extra
    if not isinstance(marks, dict) or declared.description is None:
        raise TypeError(f"{owner.__name__}.{name} was not declared with `setting`")
    constraints = {k: v for mark in declared.metadata for k, v in asdict(mark).items()}
    marks = {**marks, "source": source}
    return Field(default, description=declared.description, json_schema_extra=marks, **constraints)


def said(error: ValidationError, owner: str = "") -> str:
    """What is wrong with settings, in a line: each one's name, its value and what would be right.

    Args:
        owner: what the names are below, such as ``mapper``.
    """
    details = error.errors()
    inner = {detail["loc"][:n] for detail in details for n in range(len(detail["loc"]))}
    told = [_problem(detail, owner) for detail in details if detail["loc"] not in inner]
    return "; ".join(dict.fromkeys(told))


def _problem(detail: ErrorDetails, owner: str) -> str:
    path = [str(part) for part in detail["loc"] if part != "[key]"]
    name = ".".join([owner, *path] if owner else path)
    message = _NEEDLESS.sub("", detail["msg"]).replace(" after validation", "")
    value = detail["input"]
    several = isinstance(value, BaseModel | dict) and not message.startswith("must")
    if several and detail["type"] == "value_error":
        return f"{name}: {message}" if name else message  # of several settings, which it names
    if detail["type"] == "extra_forbidden":
        return f"{name} is no setting"
    shown = repr(value) if len(repr(value)) <= _LONGEST else f"{repr(value)[:_LONGEST]}..."
    if detail["type"] == "missing":
        return f"{name} must be given; there is only {shown}"
    return f"{name} is {shown}; it {'' if message.startswith('must') else 'must '}{message}"


_WORDS: dict[type, str] = {  # a bool is an int too, so it comes first
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


def _kinds(annotation: Any) -> Iterator[type]:
    """The plain types that an annotation takes, of itself or of what it holds."""
    if get_origin(annotation) is Literal:
        yield from map(type, get_args(annotation))
    elif get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif inner := get_args(annotation):
        for part in inner:
            yield from _kinds(part)
    elif isinstance(annotation, type) and annotation in _WORDS:
        yield annotation


def _items(value: Any) -> Iterator[Any]:
    """A value, or what it holds where it is a list or a map."""
    if isinstance(value, dict):
        for pair in value.items():
            yield from pair
    elif isinstance(value, list | tuple | set):
        yield from value
    else:
        yield value


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
