"""The base of every configuration, and what of it goes into fingerprints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator

from data.io import identity
from gill.settings import ComponentSettings, setting

EMBEDDED = "chosen on the embedded recipe (docs/experiments.md)"
PLAIN = "the plainest choice"
STATISTICS = "a round number: intervals of 4 to 6 points"

Item = TypeVar("Item")


def _one_line(text: str) -> str:
    if any(not character.isprintable() for character in text):
        raise ValueError("must have no line breaks and no other control characters")
    return text


def _name(text: str) -> str:
    if not text.strip() or text != text.strip():
        raise ValueError("must be a name without blanks around it")
    return _one_line(text)


def _split(text: str) -> str:
    if not re.fullmatch(r"\w+(-[a-zA-Z_]\w*)*", text, re.ASCII) or len(text) > 64:
        raise ValueError("must be letters, digits and _ alone: the files of a split begin with it")
    return text


def _unique(items: tuple[Item, ...]) -> tuple[Item, ...]:
    if len(set(items)) < len(items):
        raise ValueError("must name each but once")
    return items


Line = Annotated[str, AfterValidator(_one_line)]
Name = Annotated[str, AfterValidator(_name)]
SplitName = Annotated[str, AfterValidator(_split)]
Unique = AfterValidator(_unique)


class Config(ComponentSettings):
    """Base of every configuration."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """The fields that bear on the result."""
        unfingerprinted = {
            name
            for name, declared in type(self).model_fields.items()
            if self.marked(name, "unfingerprinted")
            or (
                self.marked(name, "unfingerprinted_at_default")
                and getattr(self, name) == declared.default
            )
        }
        values = self.model_dump(mode="json", exclude=unfingerprinted)
        for name in values:
            value = getattr(self, name)
            if isinstance(value, Config):
                values[name] = value.fingerprint_fields()
            elif self.marked(name, "contents") and value:
                values[name] = content_digest(Path(value))
        return values

    @classmethod
    def marked(cls, name: str, mark: str) -> bool:
        """Whether a setting was declared with a mark."""
        extra = cls.model_fields[name].json_schema_extra
        return isinstance(extra, dict) and bool(extra.get(mark))


def unfingerprinted(default: Any, description: str, **declared: Any) -> Any:
    """A setting that says how or where something runs and not what comes out."""
    return setting(default, description, extra={"unfingerprinted": True}, **declared)


def contents(description: str) -> Any:
    """A setting with the path of a file or folder: what it holds bears on the result."""
    return setting(
        "",
        description,
        unit="path",
        source="none: such files do not ship with the project",
        extra={"contents": True},
    )


def content_digest(path: Path) -> str:
    """Digest of what a file or folder holds; the path where there is nothing."""
    return identity.content_digest(path) if path.exists() else str(path)
