"""How a component declares its settings: default, meaning, unit, and where the default comes from.

A component's settings are a small frozen model beside it. Configurations of stages inherit from
these models and so take over the declarations; ``of`` cuts the component's part out again.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

REFERENCE = "the reference run (docs/method.md)"
PAPER = "the paper"


class ComponentSettings(BaseModel):
    """Base of the settings of a component: frozen, unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


def with_default(owner: type[BaseModel], name: str, default: Any, source: str = "") -> Any:
    """A setting of ``owner`` with another default; the rest of its declaration stays as it is."""
    declared = owner.model_fields[name]
    marks = declared.json_schema_extra
    if not isinstance(marks, dict) or declared.description is None:
        raise TypeError(f"{owner.__name__}.{name} was not declared with `setting`")
    constraints = {k: v for mark in declared.metadata for k, v in asdict(mark).items()}
    marks = {**marks, "source": source}
    return Field(default, description=declared.description, json_schema_extra=marks, **constraints)
