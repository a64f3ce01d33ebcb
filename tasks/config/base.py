"""The base of every configuration, and what of it goes into fingerprints."""

from __future__ import annotations


import hashlib
from pathlib import Path
from typing import Any, Literal, Self
from pydantic import BaseModel, ConfigDict, Field, model_validator
from data.artifacts import sha256_of



Precision = Literal["float32", "bfloat16", "float16"]


class Frozen(BaseModel):
    """Base of every configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def bearing(self) -> dict[str, Any]:
        """The fields that bear on the result."""
        neutral = {
            name
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("neutral")
        }
        values = self.model_dump(mode="json", exclude=neutral)
        for name, field in type(self).model_fields.items():
            extra, value = field.json_schema_extra, getattr(self, name)
            if isinstance(value, Frozen):
                values[name] = value.bearing()
            elif isinstance(extra, dict) and extra.get("contents") and value:
                values[name] = contents_of(Path(value))
        return values


def neutral(default: Any, **constraints: Any) -> Any:
    """A field that says how or where something runs and not what comes out."""
    return Field(default, json_schema_extra={"neutral": True}, **constraints)


def contents(default: str = "") -> Any:
    """A field with the path of a file or folder: what it holds bears on the result."""
    return Field(default, json_schema_extra={"contents": True})


def contents_of(path: Path) -> str:
    """Digest of a file, or of the names and sizes in a folder; the path where there is nothing."""
    if path.is_file():
        return sha256_of(path)
    if path.is_dir():
        files = sorted((str(f.relative_to(path)), f.stat().st_size) for f in path.rglob("*.*"))
        return hashlib.sha256(repr(files).encode()).hexdigest()
    return str(path)
